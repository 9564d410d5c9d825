import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { Tokens } from "../../src/pages/Tokens";
import { click, fakeApi, pass, rows, show, installPageFakes } from "../support/page";
import { makeToken } from "../support/samples";

installPageFakes();

const REVOKED = makeToken({ id: "token-2", name_pattern: "old-*", labels: {}, revoked_at: "2026-01-01T11:00:00Z" });

test("each token is a row, and a revoked one cannot be revoked again", async () => {
  fakeApi().list("enrolment-tokens", [makeToken(), REVOKED]);
  await show(<Tokens />);
  expect(rows()).toEqual([
    ["edge-*", "defaultovens", "site=kiel", "3", "ann", "in 1 hour", "Revoke"],
    ["old-*", "defaultovens", "", "3", "ann", "1 hour ago", ""],
  ]);
});

test("without tokens there is a notice", async () => {
  await show(<Tokens />);
  expect(screen.getByText("There is no enrolment token.")).toBeDefined();
});

test("an error is shown in place of the list", async () => {
  fakeApi().refuse("GET", "enrolment-tokens", 403, "you may not manage workers");
  await show(<Tokens />);
  expect(screen.getByRole("alert").textContent).toBe("you may not manage workers");
});

test("a token is revoked, and the list is read again", async () => {
  fakeApi().list("enrolment-tokens", [makeToken()]);
  fakeApi().on("DELETE", "enrolment-tokens/token-1", null, 204);
  await show(<Tokens />);
  fakeApi().list("enrolment-tokens", [makeToken({ revoked_at: "2026-01-01T12:00:00Z" })]);
  await click("Revoke");
  await pass(0);
  expect(fakeApi().changes()).toEqual([{ method: "DELETE", path: "enrolment-tokens/token-1", body: undefined }]);
  expect(rows()[0]?.at(-1)).toBe("");
});
