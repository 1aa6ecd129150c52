/**
 * What an alert is, before it becomes a rule of Prometheus, a rule of Grafana and the head of a runbook.
 */
import type { DashboardName } from '../links.ts'

export interface Alert {
  /** In CamelCase; the runbook's file is named after it. */
  readonly name: string
  readonly group: 'ring2-objective' | 'ring2-model' | 'ring2-capture' | 'ring2-pipeline'
  /** A page wakes somebody; a ticket is worked off in office hours. */
  readonly severity: 'page' | 'ticket'
  /** PromQL; it may name recorded series. Each series that it gives is an alert. */
  readonly expression: string
  /** How long the expression must hold, as PromQL writes durations; at once when left out. */
  readonly forDuration?: string
  /** Go templates over `$labels` and `$value`, which Prometheus and Grafana both fill in. */
  readonly summary: string
  readonly description: string
  /** Where to look first. */
  readonly panel: { readonly dashboard: DashboardName; readonly title: string }
  /** Label of the alert that the dashboard's variable of the same meaning takes. */
  readonly variable?: 'gen_ai_request_model' | 'ring2_segment'
}

/** A series that a recording rule makes. */
export interface Recording {
  readonly record: string
  /** It may name recordings before it. */
  readonly expression: string
  readonly labels: readonly string[]
}

/** Repository path of an alert's runbook. */
export function runbookPath(alert: Alert): string {
  const words = alert.name.replaceAll(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase()
  return `docs/runbooks/${words}.md`
}
