/** `ring2-exporter dmi-bridge`: takes the rows of a DMI deployment, which believes it is ClickHouse. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { Ring2Error } from '../errors.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes } from './outcome.ts'

interface BridgeOptions extends ConfigOptions {
  readonly listen: string
  readonly segment: string
  readonly tee?: string
  readonly payloadMb?: string
  readonly connections?: string
  readonly settleMs?: string
  readonly idleMs?: string
  readonly teeWaitMs?: string
  readonly teeBufferMb?: string
}

export function dmiBridgeCommand(command: Command): void {
  withConfig(command)
    .description('receive what a DMI deployment writes to ClickHouse, and put it into a ring')
    .option('--listen <host:port>', "DMI's database host and port", '127.0.0.1:9000')
    .option('--segment <name>', 'name of the ring; further models get a number', 'dmi')
    .option('--tee <host:port>', 'a real ClickHouse that gets the same bytes and answers')
    .option('--payload-mb <number>', 'size of a ring, 256 by default')
    .option('--connections <number>', 'clients at once, 256 by default')
    .option('--settle-ms <number>', 'silence after which a whole request is over, 2000 by default')
    .option('--idle-ms <number>', 'silence after which any request is over, 30000 by default')
    .option('--tee-wait-ms <number>', 'how long the real one may stand still, 5000 by default')
    .option('--tee-buffer-mb <number>', 'bytes kept for the real one per client, 16 by default')
    .action(async (options: BridgeOptions) => {
      process.exitCode = await bridge(options)
    })
}

const programName = 'ring2-dmi-bridge'

/** RING2_DMI_BRIDGE, or where the build puts it, or where a package carries it. */
function programPath(): string {
  const named = process.env.RING2_DMI_BRIDGE
  const root = join(import.meta.dirname, '..', '..')
  const candidates =
    named === undefined || named === ''
      ? [join(root, 'build', 'native', programName), join(root, 'native', 'lib', programName)]
      : [named]
  const found = candidates.find((path) => existsSync(path))
  if (found !== undefined) return found
  throw new Ring2Error('RING2_E_NATIVE_LIBRARY', {
    expected: `the program at ${candidates.join(' or ')}`,
    actual: 'no such file',
    action: 'Build it (`npm run build:native`) or set RING2_DMI_BRIDGE to its path.',
  })
}

function programArguments(options: BridgeOptions): string[] {
  const { directory } = configFrom(options).config.segments
  const pairs: readonly (readonly [string, string | undefined])[] = [
    ['--listen', options.listen],
    ['--segment', options.segment],
    ['--directory', directory],
    ['--tee', options.tee],
    ['--payload-mb', options.payloadMb],
    ['--connections', options.connections],
    ['--settle-ms', options.settleMs],
    ['--idle-ms', options.idleMs],
    ['--tee-wait-ms', options.teeWaitMs],
    ['--tee-buffer-mb', options.teeBufferMb],
  ]
  return pairs.flatMap(([name, value]) => (value === undefined ? [] : [name, value]))
}

/** The program's own exit code; it says on standard error what is wrong. */
function bridge(options: BridgeOptions): Promise<number> {
  const child = spawn(programPath(), programArguments(options), { stdio: 'inherit' })
  // A terminal signals both; a supervisor signals only this process.
  const pass = (signal: NodeJS.Signals): void => void child.kill(signal)
  process.on('SIGINT', pass)
  process.on('SIGTERM', pass)
  return new Promise((settle, fail) => {
    child.on('error', fail)
    child.on('exit', (code) => settle(code ?? exitCodes.failed))
  })
}
