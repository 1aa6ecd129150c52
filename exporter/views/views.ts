/**
 * All views of a store: each is prepared from the catalogue, which gives its fingerprint, and then
 * computed, so that a caller who already has the answer pays for no reading.
 */

import type { Catalog } from '../catalog/catalog.ts'
import type { CatalogRequest } from '../catalog/catalog-request.ts'
import { viewLimits } from '../limits.ts'
import type { TensorReader } from '../tensors/reader.ts'
import { type AlternativesView, alternativesView } from './alternatives.ts'
import { createViewCache } from './cache.ts'
import { type NormsQuery, type NormsView, normsSeries, normsView } from './norms.ts'
import { type PatternQuery, type PatternView, patternSeries, patternView } from './pattern.ts'
import { fingerprintOf, openScope, type ScopeQuery } from './scope.ts'
import { type TokensQuery, type TokensView, tokensSeries, tokensView } from './tokens.ts'
import type { Vocabulary } from './vocabulary.ts'

export interface PreparedView<T> {
  /** Changes when the answer may. */
  readonly fingerprint: string
  readonly requestId: string
  readonly producer: string
  compute(): Promise<T>
}

export interface Views {
  tokens(scope: ScopeQuery, query: TokensQuery): PreparedView<TokensView>
  alternatives(
    scope: ScopeQuery,
    query: { readonly position: number; readonly count: number },
  ): PreparedView<AlternativesView>
  norms(scope: ScopeQuery, query: NormsQuery): PreparedView<NormsView>
  pattern(scope: ScopeQuery, query: PatternQuery): PreparedView<PatternView>
}

/** Finds the texts of a request's token ids. */
export interface VocabularySource {
  /** Names the vocabulary of a request; null when none is stored whole. */
  find(request: CatalogRequest): string | null
  open(fingerprint: string): Promise<Vocabulary>
}

export interface ViewsOptions {
  readonly catalog: Catalog
  readonly reader: TensorReader
  /** Left out: texts are not known. */
  readonly vocabularies?: VocabularySource
  /** Bytes of heads read at once for their mean; the default is that of `viewLimits`. */
  readonly headGroupBytesMax?: number
}

export function createViews(options: ViewsOptions): Views {
  const { catalog, reader, vocabularies } = options
  const cache = createViewCache()
  const headGroupBytesMax = options.headGroupBytesMax ?? viewLimits.headGroupBytesMax
  const sources = { reader, cache, headGroupBytesMax }

  async function vocabularyOf(name: string | null): Promise<Vocabulary | null> {
    if (name === null || vocabularies === undefined) return null
    return await vocabularies.open(name)
  }

  function textual<T>(
    asked: ScopeQuery,
    query: object,
    compute: (scope: ReturnType<typeof openScope>, texts: Vocabulary | null) => Promise<T>,
  ): PreparedView<T> {
    const scope = openScope(catalog, asked)
    const { request } = scope
    const vocabulary = vocabularies?.find(request) ?? null
    const facts = [query, vocabulary, request.ended_at, request.tokens]
    return {
      // Its length is that of every tensor, so all of the request's rows count.
      fingerprint: fingerprintOf(tokensSeries(scope), facts, scope.series.length),
      requestId: request.request_id,
      producer: request.producer,
      compute: async () => await compute(scope, await vocabularyOf(vocabulary)),
    }
  }

  return {
    tokens: (asked, query) =>
      textual(asked, { query, view: 'tokens' }, (scope, texts) =>
        tokensView(reader, scope, query, texts),
      ),
    alternatives: (asked, query) =>
      textual(asked, { query, view: 'alternatives' }, (scope, texts) =>
        alternativesView(reader, scope, query, texts),
      ),
    norms(asked, query) {
      const scope = openScope(catalog, asked)
      return {
        fingerprint: fingerprintOf(normsSeries(scope, query.hook), 'norms', query),
        requestId: scope.request.request_id,
        producer: scope.request.producer,
        compute: () => normsView(sources, scope, query),
      }
    },
    pattern(asked, query) {
      const scope = openScope(catalog, asked)
      const prompt = scope.request.prompt_tokens
      return {
        fingerprint: fingerprintOf(patternSeries(scope, query.layer), 'pattern', query, prompt),
        requestId: scope.request.request_id,
        producer: scope.request.producer,
        compute: () => patternView(sources, scope, query),
      }
    },
  }
}
