/** Calls of the REST API: unchanged answers come from a cache, errors become a Problem, an expired login opens Airflow's login page. */

import { address, logIn } from "./host";

const ROOT = "remote/ui/v1";
const MAX_CACHED = 60;

/** An error of the REST API. Its message is shown to the user. */
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

/** Return whatever was thrown as a Problem that can be shown. */
export function asProblem(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(String(error), 0, "unreachable");
}

export type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

/** By URL: the newest answer and its ETag. */
const cache = new Map<string, { tag: string; value: unknown }>();

/** Return what is at *path*: the same object as before while nothing has changed. Throws a Problem. */
export async function read<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const url = urlOf(path, query);
  const before = cache.get(url);
  const headers: Record<string, string> = { accept: "application/json" };
  if (before) headers["if-none-match"] = before.tag;
  const answer = await fetch(url, { headers, credentials: "same-origin", ...(signal ? { signal } : {}) });
  if (answer.status === 304 && before) return before.value as T;
  const value = await decode<T>(answer);
  const tag = answer.headers.get("etag");
  if (tag) {
    cache.delete(url);
    cache.set(url, { tag, value });
    for (const oldest of cache.keys()) {
      if (cache.size <= MAX_CACHED) break;
      cache.delete(oldest);
    }
  }
  return value;
}

/** Change something; return what the API answers. Throws a Problem. */
export async function act<T>(method: "POST" | "PUT" | "DELETE", path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  return decode<T>(await fetch(urlOf(path, {}), { method, headers, body: body === undefined ? null : JSON.stringify(body), credentials: "same-origin" }));
}

/** Return these parts as a path, each of them encoded. */
export function path(...parts: string[]): string {
  return parts.map(encodeURIComponent).join("/");
}

/** Return the URL of *path*, for a link. */
export function restUrl(path: string): string {
  return urlOf(path, {});
}

/** Forget all answers; for tests. */
export function clearCache(): void {
  cache.clear();
}

function urlOf(path: string, query: Query): string {
  const url = new URL(address(`${ROOT}/${path}`));
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined || value === "" || value === false) continue;
    for (const item of Array.isArray(value) ? (value as readonly string[]) : [String(value)]) {
      url.searchParams.append(name, item);
    }
  }
  return url.href;
}

async function decode<T>(answer: Response): Promise<T> {
  if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as T;
  if (answer.status === 401) logIn();
  let problem: { detail?: unknown; code?: unknown } = {};
  try {
    problem = (await answer.json()) as typeof problem;
  } catch {
    // A proxy answered, not Airflow: its page is not JSON.
  }
  const detail = typeof problem.detail === "string" ? problem.detail : `${answer.status} ${answer.statusText}`.trim();
  throw new Problem(detail, answer.status, typeof problem.code === "string" ? problem.code : "unknown");
}
