/** The example notebook, run by a real kernel against a real exporter. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { createWorkspace, get, killAll, python, repository, startExporter } from './processes.ts'

const workspace = createWorkspace()

afterAll(() => {
  killAll()
  workspace.remove()
})

test('the notebook attaches, runs, fetches by trace id and plots', async () => {
  const exporter = await startExporter(workspace)
  const notebook = join(repository, 'examples/notebook/inside-one-answer.ipynb')
  const done = spawnSync(python, [join(import.meta.dirname, 'run_notebook.py'), notebook], {
    encoding: 'utf8',
    env: {
      ...process.env,
      RING2_URL: exporter.url,
      RING2_SEGMENTS_DIRECTORY: workspace.segments,
    },
  })
  expect(done.status, done.stderr).toBe(0)
  const { text, images, tables } = JSON.parse(done.stdout) as {
    text: string
    images: number
    tables: number
  }
  expect({ images, tables }).toEqual({ images: 3, tables: 1 })
  const traceId = /([0-9a-f]{32}) verdict: \w+/.exec(text)?.[1]
  const { requests } = (await get(`${exporter.url}/v1/traces/${traceId}`)).json<{
    requests: { request_id: string; completeness: string }[]
  }>()
  expect(requests).toMatchObject([{ request_id: 'notebook', completeness: 'complete' }])
  expect(await exporter.stop()).toBe(0)
})
