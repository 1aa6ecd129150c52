/**
 * The file of baselines: read at the start and again whenever it changes, written whole or not at
 * all. A file that cannot be used stops nothing; until it is mended no request is called ok.
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import {
  BASELINE_FORMAT,
  BASELINE_VERSION,
  type Baseline,
  type BaselineBook,
  type BaselineDocument,
  baselineLimits,
  noBaselines,
  parseBaselines,
} from '../collector/index.ts'
import { asRing2Error, errorText, Ring2Error, systemCode } from './errors.ts'
import { serviceLimits } from './limits.ts'
import type { Logger } from './logging.ts'

/** @throws Ring2Error RING2_E_BASELINE; null when there is no such file. */
export function readBaselines(path: string): readonly Baseline[] | null {
  let text: string
  try {
    const { size } = statSync(path)
    if (size > baselineLimits.bytesMax) {
      throw new Ring2Error('RING2_E_BASELINE', {
        expected: `at most ${baselineLimits.bytesMax} bytes in ${path}`,
        actual: `${size} bytes`,
      })
    }
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return null
    if (cause instanceof Ring2Error) throw cause
    throw new Ring2Error('RING2_E_BASELINE', {
      expected: `a readable file ${path}`,
      actual: errorText(cause),
      cause,
    })
  }
  return parseBaselines(text, path)
}

/** Replaces the file in one step. @throws Ring2Error RING2_E_BASELINE */
export function writeBaselines(path: string, baselines: readonly Baseline[]): void {
  const document: BaselineDocument = {
    format: BASELINE_FORMAT,
    version: BASELINE_VERSION,
    baselines,
  }
  const temporary = `${path}.${process.pid}.tmp`
  try {
    mkdirSync(dirname(path), { recursive: true })
    const file = openSync(temporary, 'w')
    try {
      writeFileSync(file, `${JSON.stringify(document, null, 1)}\n`)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw new Ring2Error('RING2_E_BASELINE', {
      expected: `to write ${path}`,
      actual: errorText(cause),
      action: 'Choose another file with -o or verdict.baselines, or give write permission.',
      cause,
    })
  }
}

export interface BaselineWatch {
  book(): BaselineBook
  stop(): void
}

export interface WatchOptions {
  readonly path: string
  readonly logger: Logger
  /** The file was read again. */
  onChange(book: BaselineBook): void
}

export function watchBaselines({ path, logger, onChange }: WatchOptions): BaselineWatch {
  let stamp = stampOf(path)
  let book = load(path, logger)
  const timer = setInterval(() => {
    const now = stampOf(path)
    if (now === stamp) return
    stamp = now
    book = load(path, logger)
    onChange(book)
  }, serviceLimits.baselinePollMillis)
  timer.unref()
  return { book: () => book, stop: () => clearInterval(timer) }
}

function load(path: string, logger: Logger): BaselineBook {
  try {
    const baselines = readBaselines(path)
    if (baselines === null) {
      logger.info({ path }, 'no baselines yet: requests are judged by the built-in bounds')
      return noBaselines
    }
    logger.info({ path, baselines: baselines.map(({ model }) => model) }, 'read the baselines')
    return { baselines, fault: null }
  } catch (cause) {
    const error = asRing2Error(cause)
    logger.error(
      { path, error: error.toJSON() },
      'cannot use the baselines: no request is called ok until the file is mended',
    )
    return { baselines: [], fault: error.message }
  }
}

/** Tells one content of the file from another without reading it; a new inode is another one too. */
function stampOf(path: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(path)
    return `${mtimeMs} ${size} ${ino}`
  } catch (error) {
    return String(systemCode(error))
  }
}
