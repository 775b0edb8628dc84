#!/usr/bin/env bash
# What: a hypercore 9 reader replicates, without `live`, with the writer over a slow link, and with an empty copy over a fast one. Both streams
#   end without an error, and the reader has no block. Without the copy it gets all.
#   (The copy answers first that it has nothing. The reader's selection then ends at block 0, counts as complete, and is dropped.)
#   So a multifeed hub that is not live can leave a feed that one of its peers brings, if it was already offered to the others.
# Seen: hypercore 9.12.0, hypercore-protocol 8.0.7, Node.js 20; November 2026.
set -euo pipefail
command -v npm >/dev/null || { echo 'needs Node.js and npm'; exit 2; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >package.json <<'JSON'
{ "private": true, "dependencies": { "hypercore": "9.12.0", "random-access-memory": "3.1.4" },
  "overrides": { "noise-protocol": "3.0.1", "hmac-blake2b": "2.0.0", "sodium-universal": "3.1.0", "sodium-native": "3.4.1" } }
JSON
npm install --no-audit --no-fund >npm.log 2>&1 || { cat npm.log; exit 2; }
cat >run.js <<'JS'
const hypercore = require('hypercore')
const ram = require('random-access-memory')
const { Transform } = require('stream')
const withCopy = process.argv[2] === 'copy'
const writer = hypercore(ram)
writer.append(['a', 'b', 'c'], () => {
  const copy = hypercore(ram, writer.key)
  const reader = hypercore(ram, writer.key)
  copy.ready(() => reader.ready(() => {
    const streams = [connect(writer, reader, 200)]
    if (withCopy) streams.push(connect(copy, reader, 0))
    let ended = 0
    for (const stream of streams) stream.on('close', () => { if (++ended === streams.length) report() })
    setTimeout(report, 10e3)
    function report () {
      console.log(`blocks: ${reader.downloaded()} of 3, streams ended: ${ended} of ${streams.length}`)
      process.exit(0)
    }
  }))
})
// What `a` sends takes `delay` milliseconds.
function connect (a, b, delay) {
  const [one, other] = [a.replicate(true), b.replicate(false)]
  for (const stream of [one, other]) stream.on('error', () => {})
  const slow = new Transform({ transform (data, _, done) { setTimeout(done, delay, null, data) } })
  one.pipe(slow).pipe(other).pipe(one)
  return other
}
JS
echo "hypercore $(node -p "require('hypercore/package.json').version"), hypercore-protocol $(node -p "require('hypercore-protocol/package.json').version")"
one=$(node run.js)
two=$(node run.js copy)
echo "the writer alone:           $one"
echo "the writer and a copy:      $two"
[ "$one" = 'blocks: 3 of 3, streams ended: 1 of 1' ] && [ "$two" = 'blocks: 0 of 3, streams ended: 2 of 2' ] ||
  { echo 'this has changed'; exit 1; }
