/**
 * The flat view of the configuration: one entry per key, with its environment variable, and the
 * JSON Schema that users' editors and the loader check files against.
 *
 * Derived from schema.ts alone. A variable's name is `RING2_` and the key in upper case with `_`
 * for the dot; no two keys share a name.
 */

import { configDescription, configSchema, configTitle } from './schema.ts'

/** The part of JSON Schema that the configuration uses. */
export interface KeySchema {
  readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'array'
  readonly description: string
  /** What a text that matches `pattern` is, in words. */
  readonly title?: string
  readonly default?: unknown
  readonly enum?: readonly string[]
  /** `title` of an entry says what it accepts, where its values are too many to list or a pattern. */
  readonly items?: { readonly enum?: readonly string[]; readonly title?: string }
  readonly minimum?: number
  readonly maximum?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly pattern?: string
  /** A secret: never printed. */
  readonly writeOnly?: boolean
}

interface SectionSchema {
  readonly title: string
  readonly description: string
  readonly properties: Readonly<Record<string, KeySchema>>
}

export interface ConfigKey {
  readonly section: string
  readonly name: string
  /** `section.name`. */
  readonly path: string
  /** `RING2_SECTION_NAME`. */
  readonly variable: string
  readonly schema: KeySchema
  readonly secret: boolean
}

const sections = configSchema.properties as unknown as Readonly<Record<string, SectionSchema>>

/** Section name → title and help, in the order of the schema. */
export const configSections: ReadonlyMap<string, { title: string; description: string }> = new Map(
  Object.entries(sections).map(([name, { title, description }]) => [name, { title, description }]),
)

/** Every key, in the order of the schema. */
export const configKeys: readonly ConfigKey[] = Object.entries(sections).flatMap(
  ([section, { properties }]) =>
    Object.entries(properties).map(([name, schema]) => ({
      section,
      name,
      path: `${section}.${name}`,
      variable: `RING2_${section}_${name}`.toUpperCase(),
      schema,
      secret: schema.writeOnly === true,
    })),
)

const keysByPath = new Map(configKeys.map((key) => [key.path, key]))

export function findKey(path: string): ConfigKey | undefined {
  return keysByPath.get(path)
}

/** The published JSON Schema (draft 2020-12): like the type, but every key may be left out. */
export function publishedSchema(): Record<string, unknown> {
  const properties = Object.fromEntries(
    [...configSections].map(([section, { title, description }]) => [
      section,
      {
        title,
        description,
        type: ['object', 'null'],
        additionalProperties: false,
        properties: Object.fromEntries(
          configKeys.filter((key) => key.section === section).map((key) => [key.name, titled(key)]),
        ),
      },
    ]),
  )
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: configTitle,
    description: configDescription,
    type: 'object',
    additionalProperties: false,
    properties,
  }
}

/** Editors show a key by its path; what a text is, in words, is for errors. */
function titled({ path, schema }: ConfigKey) {
  const { title: _, ...rest } = schema
  return { title: path, ...rest }
}

/** What a key accepts, in words. */
export function acceptedText(schema: KeySchema): string {
  if (schema.enum !== undefined) return `one of ${schema.enum.join(', ')}`
  if (schema.type === 'array') {
    if (schema.items?.title !== undefined) return `a list of ${schema.items.title}`
    const accepted = schema.items?.enum
    return accepted === undefined ? 'a list of texts' : `a list of: ${accepted.join(', ')}`
  }
  if (schema.type === 'boolean') return 'true or false'
  if (schema.type === 'string') {
    if (schema.title !== undefined) return schema.title
    return schema.pattern === undefined ? 'a text' : `a text that matches ${schema.pattern}`
  }
  const kind = schema.type === 'integer' ? 'a whole number' : 'a number'
  return `${kind} from ${schema.minimum} to ${schema.maximum}`
}
