#!/usr/bin/env bash
# What: a reader closes one of two feeds that share a stream, while a block of it that it asked for is still being read by the other side.
#   The answer is then sent on channel -1, and four bytes short: the header takes five bytes and room was made for one. The reader fails to
#   decode it, and its whole stream ends, also for the other feed. If the block is read at once, the stream goes on.
# Seen: hypercore 9.12.0, hypercore-protocol 8.0.7, simple-message-channels 1.2.1, Node.js 20; November 2026.
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
const delay = Number(process.argv[2])
// A disk that takes a while to read a block.
const slow = (name) => {
  const storage = ram()
  if (name !== 'data') return storage
  const read = storage.read.bind(storage)
  storage.read = (offset, size, done) => setTimeout(() => read(offset, size, done), delay)
  return storage
}
const append = (feed) => new Promise((resolve, reject) =>
  feed.append(['a block', 'another one', 'and a third', 'the last one'], (error) => error ? reject(error) : resolve()))
const get = (feed, index) => new Promise((resolve) => feed.get(index, (error) => resolve(error ? error.message : 'is here')))
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
;(async () => {
  const sources = [hypercore(slow), hypercore(ram)]
  for (const source of sources) await append(source)
  const readers = sources.map((source) => hypercore(ram, source.key, { sparse: true }))
  for (const reader of readers) await new Promise((resolve) => reader.ready(resolve))
  const ends = {}
  // Both feeds on one stream.
  const served = sources[0].replicate(false, { live: true })
  sources[1].replicate(served, { live: true })
  const read = readers[0].replicate(true, { live: true })
  readers[1].replicate(read, { live: true })
  for (const [name, stream] of [['source', served], ['reader', read]]) stream.on('error', (error) => { ends[name] = error.message })
  served.pipe(read).pipe(served)
  await get(readers[0], 0)
  get(readers[0], 2)
  await wait(100)
  await new Promise((resolve) => readers[0].close(resolve))
  await wait(1000)
  const other = await Promise.race([get(readers[1], 1), wait(3000).then(() => 'does not come')])
  console.log(`the reader's stream: ${ends.reader || 'goes on'}; a block of the other feed: ${other}`)
  process.exit(0)
})()
JS
soon=$(node run.js 0)
late=$(node run.js 300)
echo "read at once:  $soon"
echo "read in 300 ms: $late"
[ "$soon" = "the reader's stream: goes on; a block of the other feed: is here" ] &&
  [ "$late" = "the reader's stream: Decoded message is not valid; a block of the other feed: does not come" ] ||
  { echo 'this has changed'; exit 1; }
