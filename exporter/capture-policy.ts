/**
 * The capture policy in force: from the configuration, replaced while the exporter runs, and kept over
 * a restart only where `capture.keep_policy` says so.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import {
  type CapturePolicy,
  documentOf,
  type PolicyDocument,
  policyOf,
  readPolicy,
} from '../collector/index.ts'
import type { Config } from './config.ts'
import { errorText, Ring2Error, storeError, systemCode } from './errors.ts'
import type { Logger } from './logging.ts'
import type { StoreLocation } from './store/location.ts'

export interface PolicyAnswer {
  /** Where it came from. */
  readonly source: 'config' | 'kept' | 'set'
  readonly policy: PolicyDocument
}

export interface PolicyKeeper {
  current(): CapturePolicy
  get(): PolicyAnswer
  /** Times that it was replaced. */
  changes(): number
  /**
   * Replaces it, and waits until the segments have it, unless the drain is too busy to say so. What is
   * no policy is refused and changes nothing.
   */
  set(document: unknown): Promise<PolicyAnswer>
}

export interface PolicyKeeperOptions {
  readonly config: Config
  readonly location: StoreLocation
  readonly logger: Logger
  onChange(policy: CapturePolicy): Promise<void>
}

const FILE = 'policy.json'

export function createPolicyKeeper(options: PolicyKeeperOptions): PolicyKeeper {
  const { config, logger } = options
  const path = join(options.location.spool, FILE)
  const kept = config.capture.keep_policy ? readKept(path) : null
  let policy = kept ?? policyOf(config.capture)
  let source: PolicyAnswer['source'] = kept === null ? 'config' : 'kept'
  let changes = 0
  if (kept !== null) logger.info({ path }, 'the capture policy is the one that was kept')

  const get = (): PolicyAnswer => ({ source, policy: documentOf(policy) })
  return {
    current: () => policy,
    get,
    changes: () => changes,
    async set(document) {
      const next = readPolicy(document)
      if (config.capture.keep_policy) keep(path, documentOf(next))
      const before = documentOf(policy)
      policy = next
      source = 'set'
      changes += 1
      logger.info({ before, after: documentOf(policy) }, 'the capture policy has changed')
      await options.onChange(policy)
      return get()
    },
  }
}

function readKept(path: string): CapturePolicy | null {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw storeError('read', path, error)
  }
  try {
    return readPolicy(JSON.parse(text))
  } catch (error) {
    // Whatever was wanted, the configuration may want more than it: nobody is to find out later.
    throw new Ring2Error('RING2_E_POLICY', {
      expected: `a capture policy in ${path}`,
      actual: errorText(error),
      action: 'Remove the file, so that the configuration holds again, or mend it.',
      cause: error,
    })
  }
}

function keep(path: string, document: PolicyDocument): void {
  try {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(`${path}.tmp`, `${JSON.stringify(document, null, 2)}\n`, { mode: 0o600 })
    renameSync(`${path}.tmp`, path)
  } catch (error) {
    throw storeError('write', path, error)
  }
}
