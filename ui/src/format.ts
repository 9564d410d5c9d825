/** Times, durations, sizes and labels as users read them, in their language and time zone. */

import { language, zone } from "./host";

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** Return *time* as a moment: date and time in the user's zone. */
export function moment(time: string): string {
  const options: Intl.DateTimeFormatOptions = { dateStyle: "medium", timeStyle: "medium" };
  const at = new Date(time);
  try {
    return new Intl.DateTimeFormat(language(), { ...options, ...(zone() ? { timeZone: zone() } : {}) }).format(at);
  } catch {
    return new Intl.DateTimeFormat(undefined, options).format(at); // this browser doesn't know the time zone or language
  }
}

/** Return how long ago *time* was, or how soon it will be. */
export function relative(time: string, now = Date.now()): string {
  const seconds = Math.round((Date.parse(time) - now) / 1000);
  const [unit, size] = UNITS.find(([, least]) => Math.abs(seconds) >= least) ?? ["second", 1];
  try {
    return new Intl.RelativeTimeFormat(language(), { numeric: "auto" }).format(Math.trunc(seconds / size), unit);
  } catch {
    return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(Math.trunc(seconds / size), unit);
  }
}

/** Return a duration in its largest two units, such as `2 h 5 min`. */
export function duration(seconds: number): string {
  if (seconds < 10) return `${Math.round(seconds * 100) / 100} s`;
  const parts: string[] = [];
  let left = Math.round(seconds);
  for (const [name, size] of [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]] as const) {
    const count = Math.floor(left / size);
    if (count) parts.push(`${count} ${name}`);
    left -= count * size;
  }
  return parts.slice(0, 2).join(" ");
}

/** Return a number of bytes in its largest unit, such as `1.5 GB`. */
export function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const nth = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  const count = bytes / 1000 ** nth;
  return `${nth && count < 10 ? count.toFixed(1) : count.toFixed(0)} ${units[nth] ?? ""}`;
}

/** Return the beginning of a tree's digest, as logs and commands show it. */
export function shortDigest(digest: string): string {
  return digest.slice(0, 12);
}

/** Return *text* as one word of a shell command. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export function pairs(labels: Record<string, string>): string[] {
  return Object.entries(labels).map(([key, value]) => `${key}=${value}`);
}

/** Return the names in `a, b,…`. */
export function namesIn(text: string): string[] {
  return text
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}

/** Return the labels in `key=value,…`; undefined if *text* has another form. */
export function labelsIn(text: string): Record<string, string> | undefined {
  const labels: Record<string, string> = {};
  for (const pair of namesIn(text)) {
    const [key, value] = [pair.slice(0, pair.indexOf("=")).trim(), pair.slice(pair.indexOf("=") + 1).trim()];
    if (!pair.includes("=") || !key || !value) return undefined;
    labels[key] = value;
  }
  return labels;
}
