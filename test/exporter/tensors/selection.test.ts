import { expect, test } from 'vitest'
import { isKey, keyOfFlatName, partition, slug } from '../../../exporter/store/keys.ts'
import {
  parseHeads,
  parseHook,
  parseLayer,
  parseRank,
  parseSince,
  parseTokens,
  parseTraceId,
} from '../../../exporter/tensors/selection.ts'

test('a trace id is 32 hexadecimal digits, in lower case, and nothing else', () => {
  expect(parseTraceId('0AF7651916CD43DD8448EB211C80319C')).toBe('0af7651916cd43dd8448eb211c80319c')
  expect(parseTraceId('0af7651916cd43dd8448eb211c80319c')).toBe('0af7651916cd43dd8448eb211c80319c')
  for (const bad of [
    '',
    '0'.repeat(32),
    '0af7651916cd43dd8448eb211c80319',
    '../../../../../../etc/passwd',
    '0af7651916cd43dd8448eb211c8031*c',
    '0af7651916cd43dd8448eb211c80319c\n',
  ]) {
    expect(() => parseTraceId(bad)).toThrow(/RING2_E_TRACE_ID/)
  }
})

test('token ranges are half open and either end may be left out', () => {
  expect(parseTokens('2:5')).toEqual({ start: 2, end: 5 })
  expect(parseTokens(':5')).toEqual({ start: 0, end: 5 })
  expect(parseTokens('2:').start).toBe(2)
  for (const bad of ['', ':', '5', '5:5', '6:5', '-1:5', '1:2:3', 'a:b', '1.5:2', '1:9999999999']) {
    expect(() => parseTokens(bad)).toThrow(/RING2_E_QUERY.*tokens=a:b/)
  }
})

test('heads are numbers and ranges, each once', () => {
  expect(parseHeads('0,3,5:8')).toEqual([0, 3, 5, 6, 7])
  for (const bad of ['', '1,', '3:3', '1,1', '1:4,2', '0:9999', '-1', 'all']) {
    expect(() => parseHeads(bad)).toThrow(/RING2_E_QUERY.*heads/)
  }
})

test('ranks, layers and hooks have one form each', () => {
  expect(parseRank('2')).toEqual({ tp: 2 })
  expect(parseRank('tp:0,pp:1')).toEqual({ tp: 0, pp: 1 })
  for (const bad of ['', 'x:1', 'tp:0,tp:1', 'tp', '-1']) {
    expect(() => parseRank(bad)).toThrow(/RING2_E_QUERY.*rank/)
  }
  expect([parseLayer('3'), parseLayer('global'), parseLayer('-1')]).toEqual([3, -1, -1])
  for (const bad of ['', '-2', '1.5', 'first', '123456']) {
    expect(() => parseLayer(bad)).toThrow(/RING2_E_QUERY.*layer/)
  }
  expect(parseHook('resid_pre')).toBe('resid_pre')
  for (const bad of ['', '../x', 'Resid', 'a*', 'a/b']) {
    expect(() => parseHook(bad)).toThrow(/RING2_E_QUERY.*hook/)
  }
  expect(() => parseHook('hidden-states')).toThrow(/RING2_E_QUERY.*resid_pre/)
  expect(() => parseHook('logits')).toThrow(/RING2_E_QUERY.*final_logits/)
})

test('since is a duration before now or a time', () => {
  const now = Date.parse('2026-03-04T05:06:07Z')
  expect(parseSince('1h', now)).toBe((now - 3_600_000) * 1000)
  expect(parseSince('2d', now)).toBe((now - 172_800_000) * 1000)
  expect(parseSince('2026-03-04T05:06:07Z', now)).toBe(now * 1000)
  for (const bad of ['', 'yesterday', '1y', '5', '2026-99-99']) {
    expect(() => parseSince(bad, now)).toThrow(/RING2_E_QUERY.*since/)
  }
})

test('no name from outside leaves its place in a key', () => {
  for (const name of [
    '../../etc/passwd',
    '/absolute',
    '..',
    '.hidden',
    'a/../b',
    'a\\..\\b',
    '漢字',
    '',
    'x'.repeat(500),
    'model*?[]{}~$`"\'\n',
    'C:\\model',
    '...',
    'a,b',
  ]) {
    const one = slug(name)
    expect(one).toMatch(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/)
    expect(one).not.toContain('..')
    expect(isKey(`${partition('tensors', name, 0)}/p-1.parquet`)).toBe(true)
  }
  expect(slug('HuggingFaceTB/SmolLM2-135M-Instruct')).toBe('HuggingFaceTB-SmolLM2-135M-Instruct')
  expect(slug('漢字')).not.toBe(slug('字漢'))
})

test('flat names of the spool turn back into keys, and only keys do', () => {
  const key = 'requests/model=m/date=2026-01-02/p-1.parquet'
  expect(keyOfFlatName(key.replaceAll('/', ','))).toBe(key)
  for (const bad of ['', '..,x.parquet', 'tensors,model=..,date=2026-01-02,hour=01,x.parquet']) {
    expect(() => keyOfFlatName(bad)).toThrow(/RING2_E_STORE/)
  }
})
