import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { OpenIncidents } from "../src/components/OpenIncidents";
import { click, fakeApi, hasButton, pass, show, installPageFakes } from "./support/page";
import { MANAGER, VIEWER } from "./support/samples";

installPageFakes();

const INCIDENT = { id: "i-1", subject: "oven-1", text: "the worker oven-1 is silent", begun_at: "2026-01-01T11:59:00Z", acknowledged_by: null };

test("a manager acknowledges an incident, and the list is read again", async () => {
  fakeApi().list("incidents", [INCIDENT]);
  fakeApi().on("POST", "incidents/i-1/acknowledge", { ...INCIDENT, acknowledged_by: "ann" });
  await show(<OpenIncidents me={MANAGER} />);
  expect(screen.getByText("the worker oven-1 is silent")).toBeDefined();
  fakeApi().list("incidents", [{ ...INCIDENT, acknowledged_by: "ann" }]);
  await click("Acknowledge: oven-1");
  await pass(0);
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "incidents/i-1/acknowledge", body: undefined }]);
  expect(screen.getByText("acknowledged by ann")).toBeDefined();
});

test("a viewer sees incidents and can't acknowledge them", async () => {
  fakeApi().list("incidents", [INCIDENT]);
  await show(<OpenIncidents me={VIEWER} />);
  expect(screen.getByText("the worker oven-1 is silent")).toBeDefined();
  expect(hasButton("Acknowledge: oven-1")).toBe(false);
});
