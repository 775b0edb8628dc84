'use strict'
// multifeed 6.0.0 as a release whose own version or client differs: the constants that it says and that it holds a remote's against are
// others, and nothing else is.

const fs = require('fs')
const Module = require('module')

/** Has multifeed loaded with these constants. To be called before it is required. */
module.exports = function release ({ version, client }) {
  if (version === undefined && client === undefined) return
  const file = require.resolve('multifeed/mux')
  const load = Module._extensions['.js']
  Module._extensions['.js'] = function (module, name) {
    if (name !== file) return load(module, name)
    let source = fs.readFileSync(name, 'utf8')
    const set = (constant, value) => {
      if (value === undefined) return
      const before = source
      source = source.replace(new RegExp(`^var ${constant} = '[^']*'$`, 'm'), () => `var ${constant} = ${JSON.stringify(value)}`)
      if (source === before) throw new Error(`multifeed has no constant ${constant}`)
    }
    set('PROTOCOL_VERSION', version)
    set('MULTIFEED', client)
    module._compile(source, name)
  }
}
