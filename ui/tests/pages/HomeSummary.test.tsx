import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { HomeSummary } from "../../src/HomeSummary";
import { fakeApi, pass, show, installPageFakes } from "../support/page";
import { makeSummary } from "../support/samples";

installPageFakes();

/** Return the address of each link by its text. */
function links(): Record<string, string> {
  return Object.fromEntries(screen.queryAllByRole("link").map((link) => [link.textContent, link.getAttribute("href")?.split("?")[1] ?? ""]));
}

test("it counts workers and jobs, each with a link to them", async () => {
  fakeApi().on("GET", "summary", makeSummary());
  await show(<HomeSummary />);
  expect(links()).toEqual({
    "Remote Workers": "",
    "2 online": "presence=online",
    "5 running": "tab=jobs&state=running",
    "4 waiting": "tab=jobs&state=queued",
  });
});

test("silent and flagged workers and queues that no worker serves are added", async () => {
  fakeApi().on("GET", "summary", makeSummary({ silent: 1, flagged: 2, unserved: ["ovens", "ships"], unserved_count: 5 }));
  await show(<HomeSummary />);
  expect(links()).toMatchObject({
    "1 silent": "presence=silent",
    "2 with an alarm, unable to run tasks, or suspended": "flagged=true",
    "no worker serves ovens, ships and 3 more": "tab=queues",
  });
});

test("it is hidden while there are neither workers nor jobs", async () => {
  fakeApi().on("GET", "summary", makeSummary({ workers: 0, online: 0, queued: 0, running: 0 }));
  await show(<HomeSummary />);
  expect(document.body.textContent).toBe("");
});

test("it is shown while jobs wait for the first worker", async () => {
  fakeApi().on("GET", "summary", makeSummary({ workers: 0, online: 0, queued: 1, running: 0 }));
  await show(<HomeSummary />);
  expect(links()).toHaveProperty("1 waiting");
});

test("it is hidden if the user may not see workers", async () => {
  fakeApi().refuse("GET", "summary", 403, "you may not see workers");
  await show(<HomeSummary />);
  expect(document.body.textContent).toBe("");
});

test("after an error it keeps the last numbers", async () => {
  fakeApi().on("GET", "summary", makeSummary());
  await show(<HomeSummary />);
  fakeApi().refuse("GET", "summary", 503, "busy");
  await pass(20_000);
  expect(links()).toHaveProperty("2 online");
});
