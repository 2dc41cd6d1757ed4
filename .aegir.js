/** @type {import('aegir').PartialOptions} */
export default {
  build: {
    bundle: false
  },
  test: {
    // the tests run the TypeScript sources
    build: false
  },
  lint: {
    files: [
      '*.{js,ts}',
      '.aegir.js',
      'src/**/*.{js,ts}',
      'test/**/*.{js,ts}',
      'benchmarks/**/*.{js,ts}',
      'demo/**/*.{js,ts}',
      'interop/*.ts',
      'interop/nat/*.ts',
      'engine/*.js'
    ]
  },
  dependencyCheck: {
    ignore: [
      // brings the Node.js that npm's scripts run with
      'node'
    ],
    productionIgnorePatterns: [
      '/benchmarks',
      '/demo',
      '/dist',
      '/engine',
      '/interop',
      '/test',
      '.aegir.js'
    ],
    developmentIgnorePatterns: [
      '/dist',
      '/engine',
      '/src'
    ]
  }
}
