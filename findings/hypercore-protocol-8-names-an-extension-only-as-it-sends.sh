#!/usr/bin/env bash
# What: a stream extension (`stream.registerExtension`) is named to the other side only right before the first message that is sent with any. The `extensions`
#   event of the other side comes with that message, whether the extension was registered before the handshake or after it. So two peers that each wait for
#   `extensions` before they send wait for ever, without an error.
#   (`StreamExtension.send` is the only caller that sends the names of channel 0.)
# Seen: hypercore-protocol 8.0.7, Node.js 20; November 2026.
set -euo pipefail
command -v npm >/dev/null || { echo 'needs Node.js and npm'; exit 2; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >package.json <<'JSON'
{ "private": true, "dependencies": { "hypercore-protocol": "8.0.7" },
  "overrides": { "noise-protocol": "3.0.1", "hmac-blake2b": "2.0.0", "sodium-universal": "3.1.0", "sodium-native": "3.4.1" } }
JSON
npm install --no-audit --no-fund >npm.log 2>&1 || { cat npm.log; exit 2; }
cat >run.js <<'JS'
const Protocol = require('hypercore-protocol')
const when = process.argv[2]
const [one, other] = [new Protocol(true, { live: true }), new Protocol(false, { live: true })]
const seen = []
other.on('extensions', (names) => seen.push(`names ${names}`))
other.registerExtension('x', { encoding: 'utf8', onmessage: (text) => seen.push(`message ${text}`) })
let x
const register = () => { x = one.registerExtension('x', { encoding: 'utf8' }) }
if (when === 'before') register()
// What makes sure that bytes of the first stream reach the other one in both parts of the run: a channel that is opened.
const open = (n) => { const key = Buffer.alloc(32, n); for (const stream of [one, other]) stream.open(key, {}) }
open(1)
one.pipe(other).pipe(one)
setTimeout(() => {
  if (when === 'after') register()
  open(2)
  setTimeout(() => {
    const quiet = seen.length
    x.send('hello')
    setTimeout(() => {
      console.log(`${quiet} before the first message, then: ${seen.join(', ')}; channels ${other.remoteOpened(Buffer.alloc(32, 2)) ? 'open' : 'closed'}`)
      process.exit(0)
    }, 1000)
  }, 3000)
}, 1000)
JS
echo "hypercore-protocol $(node -p "require('hypercore-protocol/package.json').version")"
expected='0 before the first message, then: names x, message hello; channels open'
before=$(node run.js before)
after=$(node run.js after)
echo "registered before the handshake: $before"
echo "registered after it:             $after"
[ "$before" = "$expected" ] && [ "$after" = "$expected" ] || { echo 'this has changed'; exit 1; }
