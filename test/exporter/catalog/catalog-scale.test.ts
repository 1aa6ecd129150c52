/** Lookups and writes of the catalogue cost the same in a large one: each goes through an index. */
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import {
  noteDue,
  readDue,
  readKnown,
  readKnownOfTrace,
  settleDue,
} from '../../../exporter/catalog/indexes.ts'
import {
  hasNothing,
  readFile,
  readPage,
  readRequests,
  readSeries,
  readVocabulary,
  readWhole,
} from '../../../exporter/catalog/rows.ts'
import { readSummary } from '../../../exporter/catalog/sent.ts'
import { writeDescription } from '../../../exporter/catalog/write.ts'
import { noonMicros, request, row, summary, traceA } from '../tensors/rows.ts'
import { openFixture } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

/** A database that keeps the texts of the statements that are prepared. */
function recorded(path: string) {
  const database = new DatabaseSync(path)
  const statements = new Set<string>()
  const prepare = database.prepare.bind(database)
  database.prepare = (sql: string): StatementSync => {
    statements.add(sql)
    return prepare(sql)
  }
  return { database, statements, prepare }
}

function filled() {
  const fixture = openFixture(temporaryFolder())
  fixture.flush([row(), row({ layer: 1 })], [summary()])
  const [file] = fixture.catalog.files()
  fixture.catalog.close()
  fixture.sink.close()
  return { ...recorded(fixture.location.catalog), path: fixture.location.catalog, file }
}

const key = { traceId: traceA, requestId: 'request-1', producer: 'chat-00c0ffee00c0ffee' }

test('no lookup and no write reads through a whole table', () => {
  const { database, statements, prepare, file } = filled()
  const traceId = traceA
  readRequests(database, traceId)
  readSeries(database, { traceId })
  readSeries(database, { traceId, requestId: 'request-1', hook: 'resid_pre', layer: 0 })
  readFile(database, file?.key ?? '')
  readWhole(database, key)
  readVocabulary(database, 'fingerprint')
  hasNothing(database)
  readSummary(database, key)
  readKnown(database, key)
  readKnownOfTrace(database, traceId)
  for (const filter of [{}, { model: 'm' }, { verdict: 'nonfinite' }, { bad: true }]) {
    readPage(database, filter)
    readPage(database, { ...filter, sinceMicros: noonMicros })
  }
  const description = {
    key: 'tensors/model_slug=m/date=2026-03-04/hour=05/chat-1.parquet',
    dataset: 'tensors',
    bytes: 1,
    rows: 0,
    series: [],
    requests: [],
    aliases: [],
  } as const
  writeDescription(database, description)
  noteDue(database, description)
  readDue(database, 10)
  settleDue(database, { id: 1, key }, [])
  expect(statements.size).toBeGreaterThan(15)
  const scans = [...statements].flatMap((sql) => {
    const plan = prepare(`EXPLAIN QUERY PLAN ${sql}`)
    const steps = plan.all(...parameters(sql)).map((step) => String(step.detail))
    // An ordered walk that ends at its limit, constants, and the parts that one summary names, cost
    // the same in any table.
    const whole = steps.filter(
      (step) =>
        /^SCAN (?!CONSTANT|p VIRTUAL TABLE)/.test(step) &&
        !(sql.includes('LIMIT') && !sortsRows(steps)),
    )
    return whole.map((step) => `${step}: ${sql}`)
  })
  database.close()
  expect(scans).toEqual([])
})

/** A null for each parameter of a statement. */
function parameters(sql: string): null[] {
  const names = sql.match(/\?\d*/g) ?? []
  const plain = names.filter((name) => name === '?').length
  return Array(plain + new Set(names.filter((name) => name !== '?')).size).fill(null)
}

/** Whether the rows of the outermost table are sorted after they were read. */
function sortsRows(steps: readonly string[]): boolean {
  return steps.some((step) => step.includes('TEMP B-TREE FOR ORDER BY'))
}

test('lists walk an index in the order that they are shown in', () => {
  const { database, statements, prepare } = filled()
  for (const filter of [{}, { model: 'm' }, { verdict: 'nonfinite' }, { bad: true }]) {
    statements.clear()
    readPage(database, filter)
    const [sql = ''] = statements
    const values = parameters(sql)
    const steps = prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...values)
    const details = steps.map((step) => String(step.detail))
    expect(details[0]).toMatch(/USING (COVERING )?INDEX requests_/)
    expect(details.filter((step) => step.includes('ORDER BY'))).toEqual([])
  }
  database.close()
})

test('a large catalogue gives a trace of its own, and takes a description', () => {
  const { database, path } = filled()
  database.exec(`
    INSERT INTO series SELECT printf('%032x', value * 7919), 'r', 'resid_pre', 0, 0, 0, 0, 0, 1,
      value + 10, value + 11, 0, 1, 'float32', 4, 'p'
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 200000)
      SELECT value FROM n)`)
  database.close()
  const catalog = openCatalog(path)
  const other = request({ traceId: (7919).toString(16).padStart(32, '0') })
  expect(catalog.series({ traceId: other.traceId })).toHaveLength(1)
  expect(catalog.series({ traceId: traceA })).toHaveLength(2)
  const file = 'tensors/model_slug=m/date=2026-03-04/hour=05/chat-2.parquet'
  catalog.add({ key: file, dataset: 'tensors', bytes: 9, rows: 0, series: [], requests: [] })
  expect(catalog.file(file)?.bytes).toBe(9)
  catalog.close()
})
