import { describe, expect, it } from 'vitest'
import { createLogger } from '../../../exporter/logging.ts'

function capture(format: 'auto' | 'text' | 'json', terminal: boolean, level: 'info' | 'warn') {
  const lines: string[] = []
  const logger = createLogger({ level, format }, { write: (line) => lines.push(line) }, terminal)
  return { lines, logger }
}

describe('createLogger', () => {
  it('writes one JSON document per line where there is no terminal', () => {
    const { lines, logger } = capture('auto', false, 'info')
    logger.info({ segment: 'chat' }, 'segment opened')
    expect(lines).toHaveLength(1)
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({
      level: 30,
      msg: 'segment opened',
      segment: 'chat',
    })
  })

  it('writes text on a terminal, with fields that can be read back', () => {
    const { lines, logger } = capture('auto', true, 'info')
    logger.warn({ segment: 'chat', reason: 'ring is full', bytes: 5 }, 'records lost')
    expect(lines[0]).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} WARN {2}records lost segment=chat reason="ring is full" bytes=5\n$/,
    )
  })

  it('shows the message of an error, and keeps several lines on one', () => {
    const { lines, logger } = capture('text', false, 'info')
    logger.error({ err: new Error('first\nsecond') }, 'failed')
    expect(lines.join('').match(/\n/g)).toHaveLength(1)
    expect(lines[0]).toContain('err="first\\nsecond"')
  })

  it('leaves out what is less severe than the level', () => {
    const { lines, logger } = capture('json', true, 'warn')
    logger.info('not this')
    logger.warn('but this')
    expect(lines).toHaveLength(1)
    expect(JSON.parse(lines[0] ?? '').msg).toBe('but this')
  })
})
