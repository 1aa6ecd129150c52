import { dirname, join, normalize } from 'node:path'
import { expect, test } from 'vitest'
import { outputPath } from '../../../exporter/cli/fetch-output.ts'
import { request, row, summary } from '../tensors/rows.ts'
import { openFixture, query } from '../tensors/store-fixture.ts'
import { temporaryFolder } from '../tensors/temporary-folder.ts'

test('folders of requests stay below the one named, one for each id, whatever it is', async () => {
  const fixture = openFixture(temporaryFolder())
  const ids = ['plain-1.x', '..', '.', 'a/b', 'a_b', 'a?b', '/etc/passwd', '漢字', 'x'.repeat(500)]
  const requests = ids.map((requestId, key) => request({ key, requestId }))
  fixture.flush(
    requests.map((one) => row({ request: one })),
    requests.map((one) => summary({ request: one })),
  )
  const paths: string[] = []
  for (const requestId of ids) {
    const opened = await fixture.reader().open(query({ requestId }))
    const path = outputPath(opened, 'npy', 'out', false)
    expect(path).toMatch(/^out\/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\/resid_pre\.0\.npy$/)
    expect(normalize(dirname(dirname(path ?? '')))).toBe('out')
    paths.push(path ?? '')
  }
  expect(new Set(paths).size).toBe(ids.length)
  expect(paths[0]).toBe(join('out', 'plain-1.x', 'resid_pre.0.npy'))
})
