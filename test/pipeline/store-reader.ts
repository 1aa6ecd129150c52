/** Reads a store with DuckDB: another engine than the one that wrote it. */
import { DuckDBInstance } from '@duckdb/node-api'

export type DuckRow = Record<string, unknown>

export async function queryDuckDb(sql: string): Promise<DuckRow[]> {
  const instance = await DuckDBInstance.create(':memory:')
  const connection = await instance.connect()
  try {
    const reader = await connection.runAndReadAll(sql)
    return reader.getRowObjectsJson() as DuckRow[]
  } finally {
    connection.closeSync()
    instance.closeSync()
  }
}

export function tensorsOf(store: string): string {
  return `read_parquet('${store}/tensors/**/*.parquet', hive_partitioning = false)`
}

export function requestsOf(store: string): string {
  return `read_parquet('${store}/requests/**/*.parquet', hive_partitioning = false)`
}
