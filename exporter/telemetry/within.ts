/**
 * Resolves when the promise has settled or the time is over, whichever comes first. Never rejects:
 * it is for closing things, where nobody waits for the value.
 */
export async function within(millis: number, promise: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, millis)
  })
  const settled = promise.then(
    () => undefined,
    () => undefined,
  )
  await Promise.race([settled, over])
  clearTimeout(timer)
}
