/** Renders parts of the dashboard as Airflow's page does: in Chakra, with a router, against a fake REST API and a fake clock. */

import { ChakraProvider, createSystem, defaultBaseConfig } from "@chakra-ui/react";
import { act, cleanup, configure, fireEvent, render, screen, within } from "@testing-library/react";
import { useEffect, type ReactNode } from "react";
import { MemoryRouter, useLocation } from "react-router-dom";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { clearCache } from "../../src/api";
import { clearLists } from "../../src/usePagedList";
import { FakeApi } from "./fakeApi";

/** Without colours and recipes: nothing here depends on how things look. */
const system = createSystem(defaultBaseConfig);

export const NOW = "2026-01-01T12:00:00Z";

let api: FakeApi;
const place = { query: "" };

/** Return the fake API of the current test. */
export function fakeApi(): FakeApi {
  return api;
}

/** Set up the fakes for every test of the file. A request without a fake answer fails the test. */
export function installPageFakes(): void {
  beforeEach(() => {
    vi.useFakeTimers({ now: Date.parse(NOW) });
    vi.stubGlobal(
      "ResizeObserver",
      class {
        observe(): void {}
        unobserve(): void {}
        disconnect(): void {}
      },
    );
    Element.prototype.scrollTo = () => undefined; // jsdom has no layout
    // jsdom has no layout, and computing styles would take most of the time of these tests.
    configure({ defaultHidden: true });
    vi.stubGlobal("getComputedStyle", (element: HTMLElement) => element.style);
    clearCache();
    clearLists();
    api = new FakeApi();
  });
  afterEach(async () => {
    cleanup();
    await pass(10_000);
    vi.useRealTimers();
    vi.unstubAllGlobals();
    expect(api.unexpected).toEqual([]);
  });
}

/** Notes what the router has in the address. */
function AddressProbe() {
  const { search } = useLocation();
  useEffect(() => {
    place.query = search;
  }, [search]);
  return null;
}

/** Render *node* with *query* in the address, and wait for its first requests. */
export async function show(node: ReactNode, query = ""): Promise<void> {
  render(
    <ChakraProvider value={system}>
      <MemoryRouter initialEntries={[`/plugin/remote-workers${query}`]}>
        {node}
        <AddressProbe />
      </MemoryRouter>
    </ChakraProvider>,
  );
  await pass(0);
}

/** Return the parameters in the address. */
export function address(): Record<string, string> {
  return Object.fromEntries(new URLSearchParams(place.query));
}

export async function pass(ms: number): Promise<void> {
  await act(() => vi.advanceTimersByTimeAsync(ms));
}

/** Click the button of this name, within *part* if given. */
export async function click(name: string | RegExp, part: HTMLElement = document.body): Promise<void> {
  fireEvent.click(within(part).getByRole("button", { name }));
  await pass(100);
}

/** Type *text* in place of what is in the field, and wait until a filter would be applied. */
export async function fill(label: string | RegExp, text: string, part: HTMLElement = document.body): Promise<void> {
  fireEvent.change(within(part).getByLabelText(label), { target: { value: text } });
  await pass(400);
}

export async function choose(label: string, value: string, part: HTMLElement = document.body): Promise<void> {
  fireEvent.change(within(part).getByLabelText(label), { target: { value } });
  await pass(100);
}

export function dialog(): HTMLElement {
  return screen.getByRole("dialog");
}

/** Return the texts of a table's rows, cell by cell, without its header. */
export function rows(): string[][] {
  return [...document.querySelectorAll("tbody tr[data-row]")].map((row) => [...row.querySelectorAll("td")].map((cell) => cell.textContent));
}

/** Return the texts of the rows of one table. */
export function rowsOf(label: string): string[][] {
  const table = screen.getByRole("table", { name: label });
  return [...table.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")].map((cell) => cell.textContent));
}

/** Return the facts by their labels. */
export function facts(): Record<string, string> {
  return Object.fromEntries([...document.querySelectorAll("dt")].map((label) => [label.textContent, label.nextElementSibling?.textContent ?? ""]));
}

/** Return whether a button of this name is shown. */
export function hasButton(name: string): boolean {
  return screen.queryByRole("button", { name }) !== null;
}
