/** Something that happened while draining, for the log. */
export interface DrainEvent {
  readonly level: 'info' | 'warn' | 'error'
  readonly message: string
  readonly facts: Readonly<Record<string, unknown>>
}
