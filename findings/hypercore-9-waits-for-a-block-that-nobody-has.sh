#!/usr/bin/env bash
# What: two hypercore 9 readers of one feed replicate without `live`. Neither holds one of its blocks. All other blocks arrive, and then both
#   streams stay open: neither side ends, and no error or timeout comes. It ends at once if no block is missing, and also if the block is
#   missing at a writer that cleared it: the hole has to be a reader's.
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
const kind = process.argv[2]
const files = {}
const kept = (name) => files[name] || (files[name] = ram())
const writer = hypercore(ram)
writer.append(['one', 'two', 'three'], () => {
  if (kind === 'cleared') return writer.clear(1, () => replicate(writer))
  // A reader that has the blocks it asked for, and is opened again as an ordinary one.
  const sparse = hypercore(kept, writer.key, { sparse: true })
  const stream = connect(writer, sparse, { live: true })
  const blocks = kind === 'hole' ? [0, 2] : [0, 1, 2]
  const next = () => {
    if (blocks.length) return sparse.get(blocks.shift(), next)
    stream.destroy()
    setTimeout(() => replicate(hypercore(kept, writer.key)), 200)
  }
  sparse.ready(next)
})
function connect (a, b, options) {
  const [one, other] = [a.replicate(true, options), b.replicate(false, options)]
  for (const stream of [one, other]) stream.on('error', () => {})
  one.pipe(other).pipe(one)
  return one
}
function replicate (a) {
  const b = hypercore(ram, a.key)
  const report = (end) => {
    console.log(`${end}, blocks: ${[0, 1, 2].filter((n) => b.has(n)).join(' ')}`)
    process.exit(0)
  }
  connect(a, b).on('close', () => report('ended')).on('error', (error) => report(error.message))
  setTimeout(report, 60e3, 'still open')
}
JS
whole=$(node run.js whole)
cleared=$(node run.js cleared)
hole=$(node run.js hole)
echo "a reader without a hole:  $whole"
echo "a writer with a hole:     $cleared"
echo "a reader with a hole:     $hole"
[ "$whole" = 'ended, blocks: 0 1 2' ] && [ "$cleared" = 'ended, blocks: 0 2' ] && [ "$hole" = 'still open, blocks: 0 2' ] ||
  { echo 'this has changed'; exit 1; }
