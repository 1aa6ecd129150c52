/**
 * Loaded before a program (`node --import`): kills it, with SIGKILL, at the call of node:fs that
 * RING2_TEST_KILL_AT numbers, counting those that change something. A write is first made in part.
 * At the end it writes how many such calls there were to RING2_TEST_CALLS.
 */

import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

const killAt = Number(process.env.RING2_TEST_KILL_AT ?? 0)
/** Which share of a write is made, and whether a call is made before the end: as the test says. */
const share = Number(process.env.RING2_TEST_KILL_SHARE ?? 0)
const report = process.env.RING2_TEST_CALLS
const real = { ...fs }
let calls = 0

function die(): never {
  process.kill(process.pid, 'SIGKILL')
  // The signal may take a moment to arrive; nothing else may happen meanwhile.
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
}

function follow(name: 'mkdirSync' | 'fsyncSync' | 'renameSync' | 'rmSync' | 'rmdirSync'): void {
  const call = real[name] as (...values: unknown[]) => unknown
  Object.assign(fs, {
    [name](...values: unknown[]) {
      calls += 1
      if (calls !== killAt) return call(...values)
      if (share >= 0.5) call(...values)
      return die()
    },
  })
}

for (const name of ['mkdirSync', 'fsyncSync', 'renameSync', 'rmSync', 'rmdirSync'] as const) {
  follow(name)
}
Object.assign(fs, {
  writevSync(fd: number, entries: readonly Uint8Array[]) {
    calls += 1
    if (calls !== killAt) return real.writevSync(fd, entries)
    const bytes = Buffer.concat(entries)
    real.writeSync(fd, bytes, 0, Math.floor(bytes.length * share))
    return die()
  },
  writeFileSync(to: fs.PathOrFileDescriptor, text: string, options?: fs.WriteFileOptions) {
    calls += 1
    if (calls !== killAt) return real.writeFileSync(to, text, options)
    real.writeFileSync(to, text.slice(0, Math.floor(text.length * share)), options)
    return die()
  },
})
syncBuiltinESMExports()

process.on('exit', () => {
  if (report !== undefined) real.writeFileSync(report, String(calls))
})
