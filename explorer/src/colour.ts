/**
 * Colours of values. Lightness runs evenly in OKLab (Ottosson 2020), so equal steps of a value look
 * equal, also to readers who do not see some hues: hue only adds to what lightness tells. In light pages
 * more is darker, in dark pages more is lighter, so that much always stands out.
 */
export type Theme = 'light' | 'dark'

export type Rgb = readonly [number, number, number]

interface Ramp {
  readonly lightness: readonly [number, number]
  readonly chroma: readonly [number, number]
  /** Degrees. */
  readonly hue: readonly [number, number]
}

/** Cells of heat maps: the whole range that a screen can show. */
const cellRamps: Record<Theme, Ramp> = {
  light: { lightness: [0.965, 0.28], chroma: [0.04, 0.13], hue: [105, 285] },
  dark: { lightness: [0.27, 0.95], chroma: [0.09, 0.11], hue: [285, 105] },
}

/** Behind text: at every value the page's text has a contrast of at least 4.5 to 1 with it. */
const textRamps: Record<Theme, Ramp> = {
  light: { lightness: [0.975, 0.74], chroma: [0.01, 0.15], hue: [100, 52] },
  dark: { lightness: [0.27, 0.5], chroma: [0.015, 0.14], hue: [100, 45] },
}

const steps = 256

export interface ColourMap {
  /** @param share 0 to 1; others are taken as the nearer end. */
  at(share: number): Rgb
}

export function cellColours(theme: Theme): ColourMap {
  return createMap(cellRamps[theme])
}

export function textColours(theme: Theme): ColourMap {
  return createMap(textRamps[theme])
}

export function cssColour([red, green, blue]: Rgb): string {
  return `rgb(${red} ${green} ${blue})`
}

function createMap(ramp: Ramp): ColourMap {
  const table = Array.from({ length: steps }, (_, step) => colourAt(ramp, step / (steps - 1)))
  const last = table.length - 1
  const black: Rgb = [0, 0, 0]
  return {
    at: (share) => table[Math.round(Math.min(1, Math.max(0, share)) * last)] ?? black,
  }
}

function colourAt(ramp: Ramp, share: number): Rgb {
  const between = ([from, to]: readonly [number, number]) => from + (to - from) * share
  const lightness = between(ramp.lightness)
  const hue = (between(ramp.hue) * Math.PI) / 180
  // Less chroma until a screen can show it; lightness and hue stay.
  for (let chroma = between(ramp.chroma); chroma > 0; chroma -= 0.004) {
    const linear = fromOklab(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue))
    if (linear.every((part) => part >= 0 && part <= 1)) return toRgb(linear)
  }
  return toRgb(fromOklab(lightness, 0, 0))
}

type Triple = readonly [number, number, number]

/** OKLab to linear sRGB, with the matrices of its definition. */
function fromOklab(lightness: number, a: number, b: number): Triple {
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
  const medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
  return [
    4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
    -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
    -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
  ]
}

function toRgb(linear: Triple): Rgb {
  const encode = (part: number): number => {
    const value = Math.min(1, Math.max(0, part))
    const encoded = value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055
    return Math.round(encoded * 255)
  }
  return [encode(linear[0]), encode(linear[1]), encode(linear[2])]
}
