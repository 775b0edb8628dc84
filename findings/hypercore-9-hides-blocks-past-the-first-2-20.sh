#!/usr/bin/env bash
# What: a hypercore 9 peer holds one block of a long feed, past the first 2^20 (1,048,576) and not the last. A reader that connects to it
#   gets nothing, not even the feed's length, without an error: it asks what the peer has of the first 2^20 blocks, and the answer, that this
#   is nothing, does not say that there are more. If the peer holds block 5 too, the reader gets that and learns the length, and in ten seconds
#   still does not get the other.
# Seen: hypercore 9.12.0, hypercore-protocol 8.0.7, Node.js 20; November 2026. Appending 1,100,000 blocks takes most of the time.
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
const LENGTH = 1100000
const FAR = 1060000
const writer = hypercore(ram)
fill(0)

function fill (from) {
  if (from === LENGTH) return copies([[FAR], [5, FAR]])
  writer.append(Array.from({ length: 50000 }, () => Buffer.from('x')), () => fill(from + 50000))
}

// Each copy takes some blocks from the writer, and then a reader has ten seconds with it.
function copies (all) {
  if (all.length === 0) process.exit(0)
  const copy = hypercore(ram, writer.key, { sparse: true })
  const reader = hypercore(ram, writer.key)
  copy.ready(() => reader.ready(() => {
    const stop = connect(writer, copy)
    let left = all[0].length
    for (const block of all[0]) copy.get(block, (error) => { if (error) throw error; if (--left === 0) serve() })
    function serve () {
      stop()
      connect(copy, reader)
      setTimeout(() => {
        console.log(`copy holds ${copy.downloaded()} of ${copy.length}, reader ${reader.downloaded()} of ${reader.length}`)
        copies(all.slice(1))
      }, 10e3)
    }
  }))
}

function connect (a, b) {
  const [one, other] = [a.replicate(true, { live: true }), b.replicate(false, { live: true })]
  for (const stream of [one, other]) stream.on('error', () => {})
  one.pipe(other).pipe(one)
  return () => { one.destroy(); other.destroy() }
}
JS
echo "hypercore $(node -p "require('hypercore/package.json').version"), hypercore-protocol $(node -p "require('hypercore-protocol/package.json').version")"
seen=$(node run.js)
echo "$seen"
[ "$seen" = $'copy holds 1 of 1100000, reader 0 of 0\ncopy holds 2 of 1100000, reader 1 of 1100000' ] || { echo 'this has changed'; exit 1; }
