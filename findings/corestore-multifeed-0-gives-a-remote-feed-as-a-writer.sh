#!/usr/bin/env bash
# What: a corestore-multifeed with one feed of its own that met a peer gets the peer's feed from `writer('1')`, without an error. It cannot be
#   appended to. Had it asked for that writer before it met the peer, it would have a feed of its own.
#   (A feed that comes without a name is listed under the number of feeds until then, among the writers' names.)
#   So the names of writers must not be numbers.
# Seen: @frando/corestore-multifeed 0.0.1, corestore 5.8.2, hypercore 9.12.0, Node.js 20; November 2026.
set -euo pipefail
command -v npm >/dev/null || { echo 'needs Node.js and npm'; exit 2; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >package.json <<'JSON'
{ "private": true,
  "dependencies": { "@frando/corestore-multifeed": "0.0.1", "corestore": "5.8.2", "hypercore": "9.12.0", "random-access-memory": "3.1.4" },
  "overrides": { "noise-protocol": "3.0.1", "hmac-blake2b": "2.0.0", "sodium-universal": "3.1.0", "sodium-native": "3.4.1" } }
JSON
npm install --no-audit --no-fund >npm.log 2>&1 || { cat npm.log; exit 2; }
cat >run.js <<'JS'
const Multifeed = require('@frando/corestore-multifeed')
const ram = require('random-access-memory')
const meetsFirst = process.argv[2] === 'meets'
const rootKey = Buffer.alloc(32, 7)
const [a, b] = [new Multifeed(ram, { rootKey }), new Multifeed(ram, { rootKey })]
setTimeout(() => { console.log('nothing came'); process.exit(1) }, 20e3)
a.ready(() => b.ready(() => a.writer('theirs', {}, (_, theirs) => theirs.append('block', () => {
  b.writer('first', {}, () => {
    if (meetsFirst) return meet(() => ask(theirs))
    b.writer('1', {}, () => meet(() => ask(theirs)))
  })
}))))
function meet (done) {
  const stream = a.replicate(true, { live: true })
  stream.pipe(b.replicate(false, { live: true })).pipe(stream)
  const before = b.feeds().length
  const timer = setInterval(() => {
    if (b.feeds().length === before) return
    clearInterval(timer)
    done()
  }, 20)
}
function ask (theirs) {
  b.writer('1', {}, (error, feed) => feed.ready(() => feed.append('mine', failed => {
    console.log(`error: ${!!error}, the peer's feed: ${feed.key.equals(theirs.key)}, appended: ${!failed}`)
    process.exit(0)
  })))
}
JS
echo "corestore-multifeed $(node -p "require('@frando/corestore-multifeed/package.json').version"), corestore $(node -p "require('corestore/package.json').version")"
own=$(node run.js)
met=$(node run.js meets)
echo "asked for before a peer was met: $own"
echo "asked for after it was met:      $met"
[ "$own" = "error: false, the peer's feed: false, appended: true" ] && [ "$met" = "error: false, the peer's feed: true, appended: false" ] ||
  { echo 'this has changed'; exit 1; }
