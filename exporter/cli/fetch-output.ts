/**
 * Where `ring2-exporter fetch` puts tensors: format, file names, and writing. What a path cannot be
 * written for is the user's to mend, so it is said as a wrong `-o` and never as a defect.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { errorText, Ring2Error, systemCode } from '../errors.ts'
import { type TensorFormat, tensorFormats } from '../tensors/formats.ts'
import type { OpenedTensor } from '../tensors/reader.ts'
import { tensorName } from '../tensors/tensor-facts.ts'
import { outputGone } from './outcome.ts'

const defaultFormat: TensorFormat = 'npy'

/** Hexadecimal digits of the trace id in a file name: enough to tell traces apart by eye. */
const traceDigits = 8

/** Characters kept of a request's id that is no plain name. */
const requestDigits = 60

export interface OutputOptions {
  readonly format?: string
  readonly output?: string
}

/** The format that was asked for: by name, by the ending of the output file, or the default. */
export function outputFormat({ format, output }: OutputOptions): TensorFormat {
  const named = format === undefined ? null : parseFormat(format)
  const ending = endingOf(output)
  if (named === null) return ending ?? defaultFormat
  if (ending === null || ending === named) return named
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `--format ${ending} for -o ${output}, or a name that ends in .${named}`,
    actual: `--format ${named}`,
  })
}

/** @throws Ring2Error RING2_E_QUERY when several tensors shall go to one place that takes one. */
export function checkOutputCount(output: string | undefined, count: number): void {
  if (count === 1 || (output !== '-' && endingOf(output) === null)) return
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `one tensor for ${output === '-' ? 'standard output' : output}: --hook, --layer and --request`,
    actual: `${count} tensors`,
    action: 'Choose one tensor, or name a folder for all of them.',
  })
}

/** Where a tensor goes; null for standard output. `single`: it is the only one. */
export function outputPath(
  opened: OpenedTensor,
  format: TensorFormat,
  output: string | undefined,
  single: boolean,
): string | null {
  const name = `${tensorName(opened)}.${format}`
  if (!single) {
    return join(output ?? opened.traceId, folderName(opened.requestId), name)
  }
  if (output === '-') return null
  // A name with the trace in it: the same tensor of the next trace must not overwrite this one.
  const own = `${opened.traceId.slice(0, traceDigits)}.${name}`
  if (output === undefined) return own
  return isFolder(output) ? join(output, own) : output
}

/**
 * A request's folder. Ids come from outside and may hold any character: one that is no plain name
 * gets a hash, so that it leads to no other place and two of them are two folders.
 */
function folderName(requestId: string): string {
  if (/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/.test(requestId)) return requestId
  const readable = requestId.replaceAll(/[^A-Za-z0-9_-]/g, '_').slice(0, requestDigits)
  const hash = createHash('sha256').update(requestId).digest('hex').slice(0, traceDigits)
  return `${readable}-${hash}`
}

/**
 * Writes the parts to a file, or to standard output for null. A file appears whole or not at all.
 *
 * @throws Ring2Error RING2_E_QUERY when the system refuses the path; whatever the parts throw.
 */
export async function writeOutput(
  file: string | null,
  parts: AsyncIterable<Uint8Array>,
): Promise<void> {
  if (file === null) {
    for await (const part of parts) {
      if (outputGone()) break
      if (!process.stdout.write(part)) await taken(process.stdout)
    }
    return
  }
  const whole = isReplaceable(file)
  const target = whole ? `${file}.partial` : file
  const descriptor = onPath(file, () => {
    makeFolder(dirname(file))
    return openSync(target, 'w')
  })
  try {
    try {
      for await (const part of parts) onPath(file, () => writeAll(descriptor, part))
    } finally {
      closeSync(descriptor)
    }
    if (whole) onPath(file, () => renameSync(target, file))
  } catch (error) {
    if (whole) rmSync(target, { force: true })
    throw error
  }
}

/** Until the stream takes more, or nobody reads it any longer. */
function taken(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    for (const event of ['drain', 'close', 'error']) stream.once(event, () => resolve())
  })
}

function writeAll(descriptor: number, part: Uint8Array): void {
  for (let at = 0; at < part.byteLength; ) at += writeSync(descriptor, part, at)
}

/** A new file or one that a finished one may replace; a pipe or a device is written as it is. */
function isReplaceable(file: string): boolean {
  return onPath(file, () => statSync(file, { throwIfNoEntry: false })?.isFile() ?? true)
}

function onPath<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const errno = systemCode(error)
    if (errno === null) throw error
    throw new Ring2Error('RING2_E_QUERY', {
      expected: 'a writable path for -o',
      actual: `${errno} for ${JSON.stringify(file)} (${errorText(error)})`,
      action: 'Name a file, or a folder, that you may write to; - is standard output.',
      cause: error,
    })
  }
}

export interface Progress {
  step(bytes: number): void
  /** Takes the line away. */
  end(): void
}

/** One line on standard error that counts tensors, only for several and on a terminal. */
export function showProgress(count: number): Progress {
  const shown = count > 1 && process.stderr.isTTY === true
  let done = 0
  let bytes = 0
  return {
    step(more) {
      done += 1
      bytes += more
      const megabytes = (bytes / 1e6).toFixed(1)
      if (shown) process.stderr.write(`\r\u001b[K${done} of ${count} tensors, ${megabytes} MB`)
    },
    end() {
      if (shown) process.stderr.write('\r\u001b[K')
    },
  }
}

/** Not mkdir's `recursive`, which never returns where a folder exists that takes none, as /proc. */
function makeFolder(path: string): void {
  if (existsSync(path)) return
  makeFolder(dirname(path))
  mkdirSync(path)
}

function parseFormat(value: string): TensorFormat {
  const format = tensorFormats.find((known) => known === value)
  if (format !== undefined) return format
  throw new Ring2Error('RING2_E_QUERY', {
    expected: `--format ${tensorFormats.join(', ')}`,
    actual: JSON.stringify(value),
  })
}

/** The format that the name of an output file ends in; null for folders and other names. */
function endingOf(output: string | undefined): TensorFormat | null {
  if (output === undefined || isFolder(output)) return null
  return tensorFormats.find((format) => output.endsWith(`.${format}`)) ?? null
}

function isFolder(path: string): boolean {
  if (path.endsWith('/')) return true
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  } catch {
    // A path that cannot be looked at is refused with its errno when it is written.
    return false
  }
}
