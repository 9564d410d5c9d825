/** The state of the page in the query string, so that links and the browser's back button restore it. */

import { useCallback } from "react";
import { useSearchParams } from "react-router-dom";

export interface Address {
  get: (name: string) => string;
  all: (name: string) => string[];
  /** Change parameters; null or an empty text removes one. Also removes parameters that depend on others (the scroll position). */
  set: (changes: Changes) => void;
  /** Replace all parameters: one tab's filters mean nothing on another. */
  go: (params: Changes) => void;
  /**
   * Change parameters without a history entry and without notifying the router: on each change that the router sees, Airflow
   * mounts our page again, and a scrolled list would jump to its start.
   */
  replaceSilently: (changes: Changes) => void;
}

type Changes = Record<string, string | readonly string[] | null>;

/** Parameters that are removed once another one has changed. */
const DEPENDENT = ["at"];

export function useAddress(): Address {
  const [params, setParams] = useSearchParams();
  const get = useCallback((name: string) => params.get(name) ?? "", [params]);
  const all = useCallback((name: string) => params.getAll(name), [params]);
  const set = useCallback<Address["set"]>(
    (changes) =>
      setParams((old) => {
        const next = changed(old, changes);
        for (const name of DEPENDENT) if (!(name in changes)) next.delete(name);
        return next;
      }),
    [setParams],
  );
  const go = useCallback<Address["go"]>((next) => setParams(changed(new URLSearchParams(), next)), [setParams]);
  return { get, all, set, go, replaceSilently };
}

function replaceSilently(changes: Changes): void {
  const here = new URL(location.href);
  here.search = changed(here.searchParams, changes).toString();
  history.replaceState(history.state, "", here);
}

function changed(old: URLSearchParams, changes: Changes): URLSearchParams {
  const next = new URLSearchParams(old);
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const one of value === null ? [] : typeof value === "string" ? [value] : value) if (one) next.append(name, one);
  }
  return next;
}
