/** Where the arrow keys lead in running text: along it, and up and down by its lines as they are drawn. */

/** @returns the position to go to; null for keys that mean nothing here. */
export function nextToken(event: KeyboardEvent, host: HTMLElement, from: number): number | null {
  if (event.ctrlKey || event.metaKey || event.altKey) return null
  const all = [...host.querySelectorAll<HTMLElement>('[data-position]')]
  const index = all.findIndex((element) => Number(element.dataset.position) === from)
  const current = all[index]
  if (current === undefined) return null
  const target = targetOf(event.key, all, index, current)
  return target?.dataset.position === undefined ? null : Number(target.dataset.position)
}

function targetOf(
  key: string,
  all: readonly HTMLElement[],
  index: number,
  current: HTMLElement,
): HTMLElement | undefined {
  if (key === 'ArrowRight') return all[Math.min(all.length - 1, index + 1)]
  if (key === 'ArrowLeft') return all[Math.max(0, index - 1)]
  if (key === 'Home') return all[0]
  if (key === 'End') return all.at(-1)
  if (key === 'ArrowDown') return onNextLine(all.slice(index + 1), current)
  if (key === 'ArrowUp') return onNextLine(all.slice(0, index).reverse(), current)
  return undefined
}

/** Where a token is read: of one that is broken over lines the widest part, not the space or line end left behind. */
function mainBox(element: HTMLElement): DOMRect | undefined {
  return [...element.getClientRects()].sort((one, other) => other.width - one.width)[0]
}

/** Of the nearest line in the given direction, the token closest to the current one's place. */
function onNextLine(
  ordered: readonly HTMLElement[],
  current: HTMLElement,
): HTMLElement | undefined {
  const own = mainBox(current)
  if (own === undefined) return undefined
  let line: number | null = null
  let best: HTMLElement | undefined
  let distance = Number.POSITIVE_INFINITY
  for (const element of ordered) {
    const box = mainBox(element)
    if (box === undefined || Math.abs(box.top - own.top) < own.height / 2) continue
    line ??= box.top
    if (Math.abs(box.top - line) >= own.height / 2) break
    const apart = Math.abs(box.left - own.left)
    if (apart < distance) {
      distance = apart
      best = element
    }
  }
  return best
}
