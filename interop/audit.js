'use strict'
// node audit.js DIR…: opens multifeed folders with the real packages, one after the other, and checks all of them. Prints a line each,
// {"feeds":[{key,name,length,bytes,downloaded,writable,hash,valid,invalid,nodes,signatures}]}, where `valid` and
// `invalid` count blocks, and `nodes` and `signatures` are {valid,invalid}. Exits with 1 where anything is invalid.
// Beware: hypercore's own audit writes; it takes the bits of bad blocks out of the folder's bitfield.

const flat = require('flat-tree')
const crypto = require('hypercore-crypto')
const lib = require('./lib')
const { promise } = lib

async function main (dirs) {
  if (!dirs.length) throw new Error('usage: node audit.js DIR…')
  let sound = true
  for (const dir of dirs) {
    const feeds = await audit(dir).catch((err) => { throw new Error(`${dir}: ${err.stack}`) })
    lib.print({ feeds })
    sound = sound && !feeds.some((f) => f.invalid || f.nodes.invalid || f.signatures.invalid || f.hash === null)
  }
  process.exitCode = sound ? 0 : 1
}

async function audit (dir) {
  const multi = require('multifeed')(dir)
  await new Promise((resolve, reject) => multi.on('error', reject).ready(resolve))
  const feeds = []
  for (const feed of multi.feeds()) {
    const facts = await lib.describe(multi, feed)
    const nodes = await auditNodes(feed)
    const signatures = await auditSignatures(feed)
    // hypercore's audit calls empty blocks invalid where there is no `data` file, see lib.js's `get`.
    const blank = feed.byteLength === 0 && facts.hash !== null
    const { valid, invalid } = blank ? { valid: facts.downloaded, invalid: 0 } : await promise((cb) => feed.audit(cb))
    feeds.push({ ...facts, valid, invalid, nodes, signatures })
  }
  await promise((cb) => multi.close(cb))
  return feeds
}

// Each node that the bitfield has must be there, and a parent must be the hash of its children where both are held.
async function auditNodes (feed) {
  const count = { valid: 0, invalid: 0 }
  const node = (index) => promise((cb) => feed._storage.getNode(index, cb)).catch(() => null)
  for (let index = 0; index < 2 * feed.length - 1; index++) {
    if (!feed.tree.get(index)) continue
    const own = await node(index)
    const [left, right] = flat.children(index) || []
    let valid = own !== null
    if (valid && left !== undefined && feed.tree.get(left) && feed.tree.get(right)) {
      const [a, b] = [await node(left), await node(right)]
      valid = a !== null && b !== null && own.size === a.size + b.size && crypto.parent(a, b).equals(own.hash)
    }
    valid ? count.valid++ : count.invalid++
  }
  return count
}

// Every signature of which the roots are held; the one for the feed's length has to be among them.
async function auditSignatures (feed) {
  const count = { valid: 0, invalid: 0 }
  for (let index = 0; index < feed.length; index++) {
    const last = index === feed.length - 1
    const signature = await promise((cb) => feed._storage.getSignature(index, cb)).catch(() => null)
    const held = flat.fullRoots(2 * index + 2).every((root) => feed.tree.get(root))
    if (!last && !(signature && held)) continue
    const valid = await promise((cb) => feed.verify(index, signature, cb)).catch(() => false)
    valid ? count.valid++ : count.invalid++
  }
  return count
}

main(process.argv.slice(2)).catch((err) => {
  console.error(err.stack)
  process.exit(70)
})
