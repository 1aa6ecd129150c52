#!/usr/bin/env node
// Checks the Node version before anything newer is parsed, then runs the command line.
const major = Number(process.versions.node.split('.')[0])
if (major < 24) {
  process.stderr.write(`ring2-exporter: Node 24 or newer is needed; got ${process.version}.\n`)
  process.exitCode = 2
} else {
  await import('../exporter/main.ts')
}
