/** A fake REST API: it answers what a test has set, and records every request. */

import { vi } from "vitest";

export interface FakeRequest {
  method: string;
  /** Below `remote/ui/v1/`, decoded. */
  path: string;
  query: URLSearchParams;
  body: unknown;
}

type Answer = (request: FakeRequest) => Response;

export class FakeApi {
  readonly requests: FakeRequest[] = [];
  /** Requests that no test has set an answer for. */
  readonly unexpected: string[] = [];
  private readonly answers = new Map<string, Answer>();

  constructor() {
    for (const path of ["workers", "queues", "policies", "jobs", "bundles", "runtimes", "audit", "accesses", "enrolment-tokens", "incidents"]) this.list(path, []);
    this.refuse("GET", "releases", 404, "central has no release of the worker");
    for (const kind of ["fleet", "queue", "worker"]) this.list(`history/${kind}`, []);
    vi.stubGlobal("fetch", (url: string, init: RequestInit) => Promise.resolve(this.answer(url, init)));
  }

  /** Answer *path* with *value*, or with what *value* returns for the request. */
  on(method: string, path: string, value: unknown, status = 200): void {
    this.answers.set(`${method} ${path}`, (request) => {
      const body: unknown = typeof value === "function" ? (value as (request: FakeRequest) => unknown)(request) : value;
      return new Response(status === 204 ? null : JSON.stringify(body), { status });
    });
  }

  /** Answer GET *path* with a list that has no further page. */
  list(path: string, items: readonly unknown[]): void {
    this.on("GET", path, { items, next: null });
  }

  /** Refuse *path* with a problem. */
  refuse(method: string, path: string, status: number, detail: string): void {
    this.on(method, path, { detail, code: "refused" }, status);
  }

  /** Return the requests with this method and path, in order. */
  to(method: string, path: string): FakeRequest[] {
    return this.requests.filter((request) => request.method === method && request.path === path);
  }

  /** Return the requests that change something. */
  changes(): Pick<FakeRequest, "method" | "path" | "body">[] {
    return this.requests.filter(({ method }) => method !== "GET").map(({ method, path, body }) => ({ method, path, body }));
  }

  private answer(url: string, init: RequestInit): Response {
    const { pathname, searchParams } = new URL(url);
    const path = decodeURIComponent(pathname.split("/remote/ui/v1/")[1] ?? pathname);
    const request: FakeRequest = {
      method: init.method ?? "GET",
      path,
      query: searchParams,
      body: typeof init.body === "string" ? JSON.parse(init.body) : undefined,
    };
    this.requests.push(request);
    const answer = this.answers.get(`${request.method} ${path}`);
    if (answer) return answer(request);
    this.unexpected.push(`${request.method} ${path}`);
    return new Response(JSON.stringify({ detail: `no fake answer for ${path}`, code: "not-found" }), { status: 404 });
  }
}
