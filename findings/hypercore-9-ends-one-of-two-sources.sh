#!/usr/bin/env bash
# What: a hypercore 9 reader replicates, without `live`, with two peers at once that both hold the whole feed. All blocks arrive, and the
#   stream with one of the two ends. The other stays open for good, without an error or a timeout. With one peer it ends at once.
#   (A peer that says "not downloading" while blocks are still wanted is not looked at again when the other peer has brought them.)
# Seen: hypercore 9.12.0, hypercore-protocol 8.0.7, Node.js 20; November 2026. The script waits 60 s, three times JS's own timeout.
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
const sources = Number(process.argv[2])
const writer = hypercore(ram)
writer.append(Array.from({ length: 64 }, (_, n) => Buffer.alloc(1000, n)), () => {
  const copy = hypercore(ram, writer.key)
  const reader = hypercore(ram, writer.key)
  copy.ready(() => reader.ready(() => {
    connect(writer, copy).on('close', () => {
      const all = [writer, copy].slice(0, sources)
      let ended = 0
      all.forEach((source) => connect(source, reader).on('close', () => { if (++ended === all.length) report() }))
      setTimeout(report, 60e3)
      function report () {
        console.log(`blocks: ${reader.downloaded()} of 64, streams ended: ${ended} of ${all.length}`)
        process.exit(0)
      }
    })
  }))
})
function connect (a, b) {
  const [one, other] = [a.replicate(true), b.replicate(false)]
  for (const stream of [one, other]) stream.on('error', () => {})
  one.pipe(other).pipe(one)
  return other
}
JS
echo "hypercore $(node -p "require('hypercore/package.json').version"), hypercore-protocol $(node -p "require('hypercore-protocol/package.json').version")"
one=$(node run.js 1)
two=$(node run.js 2)
echo "one source:  $one"
echo "two sources: $two"
[ "$one" = 'blocks: 64 of 64, streams ended: 1 of 1' ] && [ "$two" = 'blocks: 64 of 64, streams ended: 1 of 2' ] ||
  { echo 'this has changed'; exit 1; }
