/** The live region: what a screen reader says when something changed that has no focus of its own. */

export function announce(text: string): void {
  const region = document.getElementById('live')
  if (region !== null) region.textContent = text
}
