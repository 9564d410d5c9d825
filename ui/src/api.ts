/** Calls of the REST API: what hasn't changed isn't sent again, errors are problems in words, a lost login leads to a new one. */

import { address, logIn } from "./host";

const ROOT = "remote/ui/v1";
const MOST_KNOWN = 60;

/** An answer that is no success. The text is for people. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
    this.name = "Problem";
  }
}

/** Return what was thrown as something to show. */
export function asProblem(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(String(error), 0, "unreachable");
}

export type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

/** By address: the newest answer, with its tag. */
const known = new Map<string, { tag: string; value: unknown }>();

/** Return what is at *path*; the very same object as before while nothing has changed. */
export async function read<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const url = located(path, query);
  const before = known.get(url);
  const headers: Record<string, string> = { accept: "application/json" };
  if (before) headers["if-none-match"] = before.tag;
  const answer = await fetch(url, { headers, credentials: "same-origin", ...(signal ? { signal } : {}) });
  if (answer.status === 304 && before) return before.value as T;
  const value = await understood<T>(answer);
  const tag = answer.headers.get("etag");
  if (tag) {
    known.delete(url);
    known.set(url, { tag, value });
    for (const oldest of known.keys()) {
      if (known.size <= MOST_KNOWN) break;
      known.delete(oldest);
    }
  }
  return value;
}

/** Do something; return what the API says has become of it. */
export async function act<T>(method: "POST" | "PUT" | "DELETE", path: string, wish?: unknown): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (wish !== undefined) headers["content-type"] = "application/json";
  const body = wish === undefined ? null : JSON.stringify(wish);
  return understood<T>(await fetch(located(path, {}), { method, headers, body, credentials: "same-origin" }));
}

/** Return *path* with each of its parts encoded. */
export function path(...parts: string[]): string {
  return parts.map(encodeURIComponent).join("/");
}

/** Return the address of *path*, for a link. */
export function restUrl(path: string): string {
  return located(path, {});
}

/** What is remembered of earlier answers; for tests. */
export function forget(): void {
  known.clear();
}

function located(path: string, query: Query): string {
  const url = new URL(address(`${ROOT}/${path}`));
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined || value === "" || value === false) continue;
    for (const one of Array.isArray(value) ? (value as readonly string[]) : [String(value)]) {
      url.searchParams.append(name, one);
    }
  }
  return url.href;
}

async function understood<T>(answer: Response): Promise<T> {
  if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as T;
  if (answer.status === 401) logIn();
  let said: { detail?: unknown; code?: unknown } = {};
  try {
    said = (await answer.json()) as typeof said;
  } catch {
    // Something between here and Airflow answered: its page is no word of ours.
  }
  const detail = typeof said.detail === "string" ? said.detail : `${answer.status} ${answer.statusText}`.trim();
  throw new Problem(detail, answer.status, typeof said.code === "string" ? said.code : "unknown");
}
