/** What the page shows, kept in the query string: a link shows the same, and the browser's back goes back. */

import { useCallback } from "react";
import { useSearchParams } from "react-router-dom";

export interface Address {
  get: (name: string) => string;
  all: (name: string) => string[];
  /** Change some; null or an empty text takes one out. Whatever else depends on it (a place in the list) goes too. */
  set: (changes: Changes) => void;
  /** Go to another place: what one tab's filters mean is nothing to another. */
  go: (place: Changes) => void;
  /**
   * Note where the person is: nothing to go back to, and nothing depends on it. The router is not told: at each change
   * that it hears of, Airflow's page makes ours anew, and a list that is scrolled would begin from its start.
   */
  note: (changes: Changes) => void;
}

type Changes = Record<string, string | readonly string[] | null>;

/** Names that mean nothing any more once something else has changed. */
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
  const go = useCallback<Address["go"]>((place) => setParams(changed(new URLSearchParams(), place)), [setParams]);
  return { get, all, set, go, note };
}

function note(changes: Changes): void {
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
