import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { stringify } from 'yaml'
import { histogramDocument } from '../helpers/otlp-json.ts'
import { eventually, sendOtlp, stackIsThere, startTestStack } from '../helpers/stack.ts'

interface Notice {
  readonly receiver: string
  readonly status: string
  readonly groupLabels: Readonly<Record<string, string>>
  readonly alerts: readonly { readonly labels: Readonly<Record<string, string>> }[]
}

async function startWebhook() {
  const notices: Notice[] = []
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    notices.push(JSON.parse(body) as Notice)
    response.end()
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  onTestFinished(() => {
    server.close()
  })
  return { notices, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/alerts` }
}

/** Fires for each series whose histogram has more than two samples; the label says how urgently. */
const rules = {
  groups: [
    {
      name: 'test',
      rules: [
        {
          alert: 'TooMany',
          expr: 'sum by (gen_ai_request_model, ring2_layer) (histogram_count(ring2_test_alert)) > 2',
          labels: { severity: 'page', area: 'model' },
        },
        {
          alert: 'SomeThere',
          expr: 'sum by (gen_ai_request_model) (histogram_count(ring2_test_alert)) > 2',
          labels: { severity: 'ticket', area: 'capture' },
        },
        {
          // Says nothing that the page of its area does not say.
          alert: 'Inhibited',
          expr: 'sum by (gen_ai_request_model) (histogram_count(ring2_test_alert)) > 2',
          labels: { severity: 'ticket', area: 'model' },
        },
      ],
    },
  ],
}

describe.runIf(stackIsThere())('Alertmanager', () => {
  test('posts one page and one ticket per alert and model to the webhook, and nothing before', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ring2-rules-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    writeFileSync(join(folder, 'test.rules.yaml'), stringify(rules))
    const { notices, url } = await startWebhook()
    await using stack = await startTestStack({
      rules: join(folder, '*.rules.yaml'),
      webhookUrl: url,
      evaluationInterval: '500ms',
      groupWait: '1s',
    })
    const send = async (layer: string, bucketCounts: number[]): Promise<void> => {
      const attributes = { 'gen_ai.request.model': 'm', 'ring2.layer': layer }
      const facts = { name: 'ring2.test.alert', unit: '1', attributes, bucketCounts, sum: 9 }
      expect(await sendOtlp(stack.urls.otlpHttp, 'metrics', histogramDocument(facts))).toBe(200)
    }
    await send('0', [1])
    const prometheus = async <T>(path: string): Promise<T> => {
      const response = await fetch(`${stack.urls.prometheus}/api/v1/${path}`)
      return ((await response.json()) as { data: T }).data
    }
    const sent = Date.now()
    await eventually(async () => {
      const { groups } = await prometheus<{ groups: { lastEvaluation: string }[] }>('rules')
      return Date.parse(groups[0]?.lastEvaluation ?? '') > sent ? true : undefined
    }, 'an evaluation')
    expect(await prometheus('alerts')).toEqual({ alerts: [] })
    expect(notices).toEqual([])

    await send('0', [3])
    await send('1', [4])
    const of = (receiver: string) => notices.filter((notice) => notice.receiver === receiver)
    await eventually(() => of('page').at(-1)?.alerts[1], 'a page with both layers')
    await eventually(() => of('ticket')[0], 'a ticket')
    expect(of('page').at(-1)?.groupLabels).toEqual({
      alertname: 'TooMany',
      gen_ai_request_model: 'm',
    })
    expect(
      of('page')
        .at(-1)
        ?.alerts.map(({ labels }) => labels.ring2_layer),
    ).toEqual(['0', '1'])
    expect(of('ticket')[0]?.alerts.map(({ labels }) => labels.alertname)).toEqual(['SomeThere'])
  })
})
