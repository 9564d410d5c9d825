import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { act, clearCache, path, Problem, read } from "../src/api";
import * as host from "../src/host";

const answers: Response[] = [];
const base = document.createElement("base");
const requests: { url: string; init: RequestInit }[] = [];

function answer(status: number, body: unknown, headers: Record<string, string> = {}): void {
  answers.push(new Response(status === 204 || status === 304 ? null : JSON.stringify(body), { status, headers }));
}

beforeEach(() => {
  clearCache();
  answers.length = requests.length = 0;
  vi.stubGlobal("fetch", (url: string, init: RequestInit) => {
    requests.push({ url, init });
    const next = answers.shift();
    return next ? Promise.resolve(next) : Promise.reject(new TypeError("offline"));
  });
  base.href = "http://localhost/airflow/";
  document.head.append(base);
});
afterEach(() => {
  vi.unstubAllGlobals();
  base.remove();
});

test("a URL is below Airflow's own and leaves out empty query parameters", async () => {
  answer(200, {});
  await read("workers", { text: "a b", presence: ["online", "gone"], label: "", after: null, flagged: false, limit: 5 });
  expect(requests[0]?.url).toBe("http://localhost/airflow/remote/ui/v1/workers?text=a+b&presence=online&presence=gone&limit=5");
});

test("an unchanged answer is the same object and is not sent again", async () => {
  answer(200, { items: [1] }, { etag: '"one"' });
  answer(304, null);
  answer(200, { items: [2] }, { etag: '"two"' });
  const first = await read("queues");
  expect(await read("queues")).toBe(first);
  expect(requests[1]?.init.headers).toMatchObject({ "if-none-match": '"one"' });
  expect(await read("queues")).toEqual({ items: [2] });
});

test("an error has its detail and its code", async () => {
  answer(404, { detail: "there is no worker named 'x'", code: "not-found" });
  await expect(read("workers/x")).rejects.toMatchObject({ message: "there is no worker named 'x'", status: 404, code: "not-found" });
});

test("a proxy's error page is shown by its status", async () => {
  answers.push(new Response("<html>", { status: 502, statusText: "Bad Gateway" }));
  await expect(read("me")).rejects.toEqual(new Problem("502 Bad Gateway", 502, "unknown"));
});

test("an expired login opens the login page", async () => {
  const logIn = vi.spyOn(host, "logIn").mockImplementation(() => undefined);
  answer(401, { detail: "log in", code: "unauthorized" });
  await expect(read("me")).rejects.toBeInstanceOf(Problem);
  expect(logIn).toHaveBeenCalledOnce();
});

test("a change is sent as JSON, and an empty answer is undefined", async () => {
  answer(204, null);
  expect(await act("PUT", path("queues", "a/b", "rules"), { lost_after_s: 60 })).toBeUndefined();
  expect(requests[0]?.url).toContain("/queues/a%2Fb/rules");
  expect(requests[0]?.init).toMatchObject({ method: "PUT", body: '{"lost_after_s":60}' });
});
