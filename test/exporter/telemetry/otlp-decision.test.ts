import { describe, expect, it } from 'vitest'
import { decideOtlp } from '../../../exporter/telemetry/otlp-decision.ts'

const auto = { otlp: 'auto', metrics_interval_seconds: 15 } as const
const ENDPOINT = 'http://collector:4317'

describe('decideOtlp', () => {
  it('is off without an endpoint, and says how to switch it on', () => {
    const decision = decideOtlp(auto, {})
    expect(decision).toMatchObject({ spans: false, metrics: false })
    expect(decision.reason).toContain('OTEL_EXPORTER_OTLP_ENDPOINT')
  })

  it('is on with an endpoint, from the configuration or the environment', () => {
    const both = { spans: true, metrics: true }
    expect(decideOtlp({ ...auto, endpoint: ENDPOINT }, {})).toMatchObject(both)
    expect(decideOtlp(auto, { OTEL_EXPORTER_OTLP_ENDPOINT: ENDPOINT })).toMatchObject(both)
    expect(decideOtlp({ ...auto, otlp: 'on' }, {})).toMatchObject(both)
  })

  it('sends only the signal whose endpoint is set', () => {
    expect(decideOtlp(auto, { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: ENDPOINT })).toMatchObject({
      spans: true,
      metrics: false,
    })
    expect(decideOtlp(auto, { OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: ENDPOINT })).toMatchObject({
      spans: false,
      metrics: true,
    })
  })

  it('counts an empty variable as unset', () => {
    expect(decideOtlp(auto, { OTEL_EXPORTER_OTLP_ENDPOINT: ' ' }).spans).toBe(false)
  })

  it('obeys the switches of the specification, and our own', () => {
    const on = { ...auto, endpoint: ENDPOINT }
    expect(decideOtlp(on, { OTEL_SDK_DISABLED: 'true' }).spans).toBe(false)
    expect(decideOtlp({ ...on, otlp: 'off' }, {}).spans).toBe(false)
    expect(decideOtlp(on, { OTEL_TRACES_EXPORTER: 'none' })).toMatchObject({
      spans: false,
      metrics: true,
    })
    expect(decideOtlp(on, { OTEL_METRICS_EXPORTER: 'otlp,console' }).metrics).toBe(true)
  })

  it('refuses another protocol than gRPC, naming the variable', () => {
    const on = { ...auto, endpoint: ENDPOINT }
    expect(() => decideOtlp(on, { OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' })).toThrow(
      /RING2_E_CONFIG.*OTEL_EXPORTER_OTLP_PROTOCOL.*http\/protobuf/,
    )
    const specific = {
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf',
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc',
      OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: 'grpc',
    }
    expect(decideOtlp(on, specific).spans).toBe(true)
    expect(decideOtlp(auto, { OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' }).spans).toBe(false)
  })

  it('refuses an endpoint without a scheme, from wherever it came', () => {
    const variable = 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'
    expect(() => decideOtlp(auto, { [variable]: 'localhost:4317' })).toThrow(
      /RING2_E_CONFIG.*OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.*localhost:4317/,
    )
    expect(() => decideOtlp({ ...auto, endpoint: 'http://' }, {})).toThrow(/telemetry\.endpoint/)
    const unused = { [variable]: 'localhost:4317', OTEL_TRACES_EXPORTER: 'none' }
    expect(decideOtlp({ ...auto, otlp: 'on' }, unused).metrics).toBe(true)
  })

  it('does not print credentials of an endpoint', () => {
    const { reason } = decideOtlp({ ...auto, endpoint: 'http://me:secret@collector:4317' }, {})
    expect(reason).toContain('http://collector:4317')
    expect(reason).not.toContain('secret')
  })
})
