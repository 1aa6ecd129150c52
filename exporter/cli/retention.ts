/** `ring2-exporter retention run`: removes now what the rules of the configuration say. */
import { join } from 'node:path'
import type { Command } from 'commander'
import { takeLock } from '../catalog/process-lock.ts'
import { Ring2Error } from '../errors.ts'
import { deletionFolder } from '../retention/journal.ts'
import { deletionLimits } from '../retention/limits.ts'
import { openDeletion } from '../retention/open.ts'
import { type PlannedRemoval, planRetention } from '../retention/plan.ts'
import { retentionPass } from '../retention/retention.ts'
import { readRules } from '../retention/rules.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson } from './outcome.ts'
import { bytesText, counted, styles, table } from './table.ts'

interface RetentionOptions extends ConfigOptions {
  readonly dryRun?: boolean
  readonly json?: boolean
}

export function retentionCommand(command: Command): void {
  command.description('remove what is old or too much, by the rules of the configuration')
  withConfig(command.command('run'))
    .description('remove now what the rules say; a running exporter does so by itself')
    .option('--dry-run', 'show what would go, and remove nothing')
    .option('--json', 'print one JSON document')
    .action(async (options: RetentionOptions) => {
      process.exitCode = await run(options)
    })
}

async function run(options: RetentionOptions): Promise<number> {
  const { config } = configFrom(options)
  const rules = readRules(config)
  if (rules === null) {
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: 'retention.max_age, retention.max_bytes or retention.models',
      actual: 'none of them is set, so nothing is ever removed',
    })
  }
  const { context, close } = await openDeletion(config)
  const removed: PlannedRemoval[] = []
  let requests = 0
  const dryRun = options.dryRun === true
  try {
    if (dryRun) removed.push(...planRetention(context.catalog.files(), rules, Date.now()))
    else {
      const onRemoved = (removal: PlannedRemoval) => void removed.push(removal)
      requests = await removeAll({ ...context, rules, onRemoved })
    }
  } finally {
    close()
  }
  const bytes = removed.reduce((sum, removal) => sum + removal.bytes, 0)
  const files = removed.length
  if (options.json === true) printJson({ dry_run: dryRun, files, bytes, requests, removed })
  else {
    if (files > 0) print(asTable(removed))
    print(`${dryRun ? 'would remove' : 'removed'} ${counted(files, 'file')}, ${bytesText(bytes)}`)
  }
  return exitCodes.done
}

type Context = Parameters<typeof retentionPass>[0]

async function removeAll(context: Context): Promise<number> {
  const path = join(deletionFolder(context.location), 'lock')
  const unlock = takeLock(path, deletionLimits.lockMillisMax)
  if (unlock === null) {
    throw new Ring2Error('RING2_E_UNSETTLED', {
      expected: 'no deletion at the same time',
      actual: `another holds ${path}`,
      action: 'Run it again when that is done.',
    })
  }
  try {
    const nowMillis = Date.now()
    let requests = 0
    for (let left = 1; left > 0; ) {
      const report = await retentionPass(context, nowMillis)
      requests += report.requests
      left = report.left
    }
    return requests
  } finally {
    unlock()
  }
}

function asTable(removed: readonly PlannedRemoval[]): string {
  return table(
    [{ title: 'REASON' }, { title: 'BYTES', right: true }, { title: 'FILE' }],
    removed.map(({ reason, bytes, key }) => [reason, bytesText(bytes), key]),
    styles().bold,
  )
}
