import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { rebuildCatalog } from '../../../exporter/catalog/rebuild.ts'
import { createParquetSource } from '../../../exporter/parquet/parquet-source.ts'
import { createVocabularyReader } from '../../../exporter/tensors/vocabularies.ts'
import { model, noonMicros, otherProducer, producer, summary, traceA } from './rows.ts'
import { openFixture } from './store-fixture.ts'
import { temporaryFolder } from './temporary-folder.ts'

const texts = ['a', ' ü', '"\n', null, '']
const fingerprint = createHash('sha256').update('1:a3: ü2:"\n-:0:').digest('hex')

function part(number: number, change: object = {}) {
  const firstId = number * 2
  const some = texts.slice(firstId, firstId + 2)
  return {
    ...{ model: model.name, fingerprint, parts: 3, part: number, firstId, texts: some },
    ...change,
  }
}

function openVocabularies() {
  const root = temporaryFolder()
  const fixture = openFixture(root)
  const reader = () => createVocabularyReader(fixture.catalog, createParquetSource(fixture.store))
  function send(parts: readonly ReturnType<typeof part>[], from = producer) {
    for (const one of parts) fixture.sink.vocabulary?.(one, from, noonMicros)
    return fixture.flush([], [], from)
  }
  const stored = () =>
    readdirSync(join(root, 'vocabularies'), { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('.parquet'),
    )
  return { fixture, reader, send, stored }
}

function ofRequest(fixture: ReturnType<typeof openFixture>, named: string) {
  fixture.flush([], [summary({ model: { ...model, vocabularyFingerprint: named } })])
  const [request] = fixture.catalog.requests(traceA)
  if (request === undefined) throw new Error('the request was not stored')
  return request
}

test('parts of several flushes make one vocabulary, found by the request that names it', async () => {
  const { fixture, reader, send } = openVocabularies()
  const request = ofRequest(fixture, fingerprint)
  send([part(2), part(0)])
  expect(reader().find(request)).toBeNull()
  send([part(1)])
  expect(reader().find(request)).toBe(fingerprint)
  const opened = await reader().open(fingerprint)
  expect([0, 1, 2, 3, 4, 5, -1].map(opened.text)).toEqual([...texts, null, null])
})

test('a vocabulary that is stored already is not stored again', () => {
  const { send, stored } = openVocabularies()
  const all = [part(0), part(1), part(2)]
  expect(send(all)).toHaveLength(1)
  expect(send(all)).toHaveLength(0)
  expect(send(all, otherProducer)).toHaveLength(0)
  expect(stored()).toHaveLength(1)
})

test('a catalogue made again from the files finds it', async () => {
  const { fixture, reader, send } = openVocabularies()
  const request = ofRequest(fixture, fingerprint)
  send([part(0), part(1)])
  send([part(2)])
  const before = fixture.catalog.vocabulary(fingerprint)
  await rebuildCatalog(fixture.store, fixture.location.catalog)
  expect(fixture.catalog.vocabulary(fingerprint)).toEqual(before)
  expect(reader().find(request)).toBe(fingerprint)
})

test('texts that the fingerprint does not name are an error, not texts', async () => {
  const { reader, send } = openVocabularies()
  send([part(0), part(1, { texts: ['"\n', 'other'] }), part(2)])
  await expect(reader().open(fingerprint)).rejects.toMatchObject({
    code: 'RING2_E_STORE',
    expected: `the texts of vocabulary ${fingerprint}`,
  })
})

test('parts that do not follow each other are an error', async () => {
  const { reader, send } = openVocabularies()
  send([part(0), part(1, { firstId: 3 }), part(2)])
  await expect(reader().open(fingerprint)).rejects.toMatchObject({
    code: 'RING2_E_STORE',
    expected: expect.stringMatching(/texts from id 2 on in row 1 of vocabularies/),
  })
})

test('a request of a producer that sent none has none', () => {
  const { fixture, reader } = openVocabularies()
  expect(reader().find(ofRequest(fixture, 'f'.repeat(64)))).toBeNull()
  fixture.flush([], [summary()])
  const [request] = fixture.catalog.requests(traceA)
  expect(request && reader().find(request)).toBeNull()
})
