import { screen } from "@testing-library/react";
import { beforeEach, expect, test, vi } from "vitest";
import { command, Join } from "../../src/pages/Join";
import { click, dialog, fakeApi, fill, pass, show, installPageFakes } from "../support/page";
import { makeToken, makeWorker, NEVER_CALLED } from "../support/samples";

installPageFakes();

beforeEach(() => fakeApi().on("POST", "enrolment-tokens", { token: "arenr_secret", central: "", about: makeToken() }, 201));

test("a token is created for the queues, names and labels that the user types", async () => {
  await show(<Join onClose={NEVER_CALLED} />);
  await fill(/^Queues/, "ovens, presses");
  await fill(/^Worker names/, "edge-*");
  await fill(/^Labels/, "site=kiel");
  await fill(/^How many workers/, "5");
  await fill(/^Valid for/, "90");
  await click("Create token");
  expect(fakeApi().changes()).toEqual([
    {
      method: "POST",
      path: "enrolment-tokens",
      body: { queues: ["ovens", "presses"], name_pattern: "edge-*", labels: { site: "kiel" }, uses: 5, expires_s: 5400 },
    },
  ]);
});

test("without changes the token is for one worker, the default queue and an hour", async () => {
  await show(<Join onClose={NEVER_CALLED} />);
  await click("Create token");
  expect(fakeApi().changes()[0]?.body).toEqual({ queues: ["default"], name_pattern: "*", labels: {}, uses: 1, expires_s: 3600 });
});

test("a refused token is not shown, and the cause is", async () => {
  fakeApi().refuse("POST", "enrolment-tokens", 422, "labels: a key has at least one character");
  await show(<Join onClose={NEVER_CALLED} />);
  await fill(/^Labels/, "site");
  await click("Create token");
  expect(fakeApi().changes()[0]?.body).toMatchObject({ labels: { "": "site" } });
  expect(screen.getByRole("alert").textContent).toBe("labels: a key has at least one character");
});

test("the command to paste is shown and copied", async () => {
  const writeText = vi.fn(() => Promise.resolve());
  Object.defineProperty(navigator, "clipboard", { value: { writeText }, configurable: true }); // jsdom has none
  await show(<Join onClose={NEVER_CALLED} />);
  await click("Create token");
  expect(dialog().textContent).toContain("The token is shown only once.");
  const [copy] = screen.getAllByRole("button", { name: "Copy" });
  copy?.click();
  expect(writeText).toHaveBeenCalledWith(command("pip", "http://localhost:3000", "arenr_secret", "edge-*"));
});

test("workers join at the address that central is configured with", async () => {
  fakeApi().on("POST", "enrolment-tokens", { token: "arenr_secret", central: "https://airflow.example.com/sub", about: makeToken() }, 201);
  await show(<Join onClose={NEVER_CALLED} />);
  await click("Create token");
  expect(dialog().textContent).toContain("join https://airflow.example.com/sub --token -");
});

test("a worker that joins after the token was created is reported", async () => {
  fakeApi().list("workers", [makeWorker({ name: "old", created_at: "2026-01-01T11:59:59Z" })]);
  await show(<Join onClose={NEVER_CALLED} />);
  await click("Create token");
  expect(screen.getByRole("status").textContent).toBe("Waiting for a worker to join …");
  fakeApi().list("workers", [makeWorker({ name: "edge-1", created_at: "2026-01-01T12:00:05Z" })]);
  await pass(3_000);
  expect(screen.getByRole("status").textContent).toBe("edge-1 has joined");
  expect(fakeApi().to("GET", "workers")[0]?.query.get("order")).toBe("-created_at");
});
