#!/usr/bin/env bash
# What: two hypercore 9 peers, live, and a link of 40 kB/s on which bytes never stop for more than 50 ms. A block of 400 kB arrives after
#   10 s. A block of 1.2 MB, which needs 30 s, never does: after 20 s the reader ends the stream with "Request timeout", with two thirds of
#   the block received. Bytes of a message that is not whole do not count for its clock.
# Seen: hypercore 9.12.0, hypercore-protocol 8.0.7, Node.js 20; November 2026. Takes 30 s.
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
const { Transform } = require('stream')
const hypercore = require('hypercore')
const ram = require('random-access-memory')
const size = Number(process.argv[2])
const writer = hypercore(ram)
writer.append(Buffer.alloc(size, 7), () => {
  const reader = hypercore(ram, writer.key)
  reader.ready(() => {
    const began = Date.now()
    let bytes = 0
    // 40 kB/s, in pieces of 2 kB: bytes never stop for more than 50 ms.
    const link = new Transform({
      readableHighWaterMark: 1, writableHighWaterMark: 1,
      transform (data, _, done) {
        const next = () => {
          if (!data.length) return done()
          this.push(data.slice(0, 2000))
          bytes += Math.min(2000, data.length)
          data = data.slice(2000)
          setTimeout(next, 50)
        }
        next()
      }
    })
    const [one, other] = [writer.replicate(true, { live: true }), reader.replicate(false, { live: true })]
    let error = 'none'
    one.on('error', () => {})
    link.on('error', () => {})
    other.on('error', (e) => { error = e.message })
    other.on('close', () => report('closed'))
    one.pipe(link).pipe(other).pipe(one)
    reader.on('download', () => report('downloaded'))
    function report (what) {
      const seconds = Math.round((Date.now() - began) / 1000)
      console.log(`${what} after ${seconds} s, error: ${error}, bytes on the link: ${bytes}`)
      process.exit(0)
    }
  })
})
JS
echo "hypercore $(node -p "require('hypercore/package.json').version"), hypercore-protocol $(node -p "require('hypercore-protocol/package.json').version")"
small=$(node run.js 400000)
large=$(node run.js 1200000)
echo "400 kB: $small"
echo "1.2 MB: $large"
[[ $small == downloaded* && $large == closed*'error: Request timeout, bytes on the link: 7'????? ]] || { echo 'this has changed'; exit 1; }
