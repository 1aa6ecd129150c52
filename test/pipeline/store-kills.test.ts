/**
 * Exporters that are killed (SIGKILL) at one call to the file system after the other, in the middle
 * of a write too: whoever comes next has every row exactly once, in files that can be read, and
 * leaves nothing behind.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openCatalog } from '../../exporter/catalog/catalog.ts'
import { keyOfFlatName } from '../../exporter/store/keys.ts'
import { openProducer } from '../helpers/producer.ts'
import { writeRequest } from '../helpers/requests.ts'
import { createWorkspace, type Workspace } from './processes.ts'
import { queryDuckDb } from './store-reader.ts'

/** Kills of each kind of store, spread over all calls that a run makes. */
const kills = 20
/** How much of a write is made before the kill; a call that is no write is made from a half on. */
const shares = [0, 0.31, 0.87, 1]
const requests = 3
const rows = requests * 2 * 2
const bytes = requests * 2 * (3 + 1) * 4 * 4

type Kind = 'directory' | 'bucket'

function newWorkspace(): Workspace {
  const workspace = createWorkspace()
  onTestFinished(() => workspace.remove())
  const producer = openProducer({ directory: workspace.segments, name: 'chat' })
  producer.model()
  for (let key = 1; key <= requests; key++) writeRequest(producer, key, 3, 2)
  producer.close()
  return workspace
}

interface Plan {
  readonly kind: Kind
  readonly fsync: boolean
  readonly killAt?: number
  readonly share?: number
}

const stateOf = (workspace: Workspace) => join(workspace.root, 'state')

/** How the process ended: 0, or the signal. */
async function drain(workspace: Workspace, plan: Plan): Promise<unknown> {
  const url = plan.kind === 'directory' ? workspace.store : 's3://bucket/prefix'
  const words = [
    ...['--import', join(import.meta.dirname, 'kill-at.ts')],
    join(import.meta.dirname, 'drain.child.ts'),
    ...[workspace.segments, url, stateOf(workspace), plan.fsync ? 'fsync' : 'none'],
  ]
  const env = {
    ...process.env,
    RING2_TEST_KILL_AT: String(plan.killAt ?? 0),
    RING2_TEST_KILL_SHARE: String(plan.share ?? 0),
    RING2_TEST_CALLS: join(workspace.root, 'calls'),
  }
  const child = spawn(process.execPath, words, { env, stdio: ['ignore', 'inherit', 'pipe'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  const [code, signal] = await once(child, 'close')
  if (signal === null) expect(errors).toBe('')
  return signal ?? code
}

/** Paths of all files below a folder. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}

async function expectEverythingOnce(workspace: Workspace, kind: Kind, when: string): Promise<void> {
  const state = kind === 'directory' ? join(workspace.store, '.ring2') : stateOf(workspace)
  const place = kind === 'directory' ? workspace.store : join(state, 'queue')
  const parquet = filesBelow(place).filter((path) => path.endsWith('.parquet'))
  const named = (dataset: string) =>
    parquet.filter((path) => path.slice(place.length + 1).startsWith(dataset))
  const list = (paths: readonly string[]) => paths.map((path) => `'${path}'`).join(', ')
  const [stored] = await queryDuckDb(
    `SELECT count(*)::INTEGER AS rows, sum(octet_length(data))::INTEGER AS bytes,
       count(DISTINCT (request_id, hook, layer, step))::INTEGER AS places
     FROM read_parquet([${list(named('tensors'))}], hive_partitioning = false)`,
  )
  expect(stored, when).toEqual({ rows, bytes, places: rows })
  const ended = await queryDuckDb(
    `SELECT request_id, completeness, tensors_stored::INTEGER AS tensors
     FROM read_parquet([${list(named('requests'))}], hive_partitioning = false) ORDER BY 1`,
  )
  const whole = { completeness: 'complete', tensors: 4 }
  const ids = Array.from({ length: requests }, (_, index) => ({
    request_id: `request-${index + 1}`,
    ...whole,
  }))
  expect(ended, when).toEqual(ids)
  const catalog = openCatalog(join(state, 'catalog.sqlite'))
  const keys = parquet.map((path) =>
    keyOfFlatName(path.slice(place.length + 1).replaceAll('/', ',')),
  )
  const unknown = keys.filter((key) => !catalog.has(key))
  catalog.close()
  expect(unknown, when).toEqual([])
  const others = filesBelow(workspace.root).filter(
    (path) => !parquet.includes(path) && !/\/(calls|catalog\.sqlite[^/]*)$/.test(path),
  )
  expect(others, when).toEqual([])
  expect(readdirSync(workspace.segments), when).toEqual([])
}

async function callsOfOneRun(plan: Plan): Promise<number> {
  const workspace = newWorkspace()
  expect(await drain(workspace, plan)).toBe(0)
  await expectEverythingOnce(workspace, plan.kind, 'without a kill')
  return Number(readFileSync(join(workspace.root, 'calls'), 'utf8'))
}

test.each<Kind>(['directory', 'bucket'])(
  'with a %s every row is stored once, whichever call a kill comes at',
  async (kind) => {
    const plans = [true, false].map((fsync) => ({ kind, fsync }))
    const counts = await Promise.all(plans.map(callsOfOneRun))
    let killed = 0
    for (let turn = 0; turn < kills; turn++) {
      const plan = plans[turn % 2] as Plan
      const calls = counts[turn % 2] ?? 0
      const killAt = 1 + Math.floor((turn * calls) / kills)
      const share = shares[turn % shares.length] as number
      const when = `killed at call ${killAt} of ${calls}, ${share} of it made, fsync ${plan.fsync}`
      const workspace = newWorkspace()
      expect(await drain(workspace, { ...plan, killAt, share }), when).toBe('SIGKILL')
      killed += 1
      expect(await drain(workspace, plan), when).toBe(0)
      await expectEverythingOnce(workspace, kind, when)
      workspace.remove()
    }
    expect(killed).toBe(kills)
  },
  300_000,
)
