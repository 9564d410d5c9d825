/** What the page shows, kept in the query string: a link shows the same, and the browser's back goes back. */

import { useCallback } from "react";
import { useSearchParams } from "react-router-dom";

export interface Address {
  get: (name: string) => string;
  all: (name: string) => string[];
  /** Change some; null or an empty text takes one out. Whatever else depends on it (a page's cursor) goes too. */
  set: (changes: Record<string, string | readonly string[] | null>) => void;
}

/** Names that mean nothing any more once something else has changed. */
const DEPENDENT = ["after"];

export function useAddress(): Address {
  const [params, setParams] = useSearchParams();
  const get = useCallback((name: string) => params.get(name) ?? "", [params]);
  const all = useCallback((name: string) => params.getAll(name), [params]);
  const set = useCallback<Address["set"]>(
    (changes) =>
      setParams((old) => {
        const next = new URLSearchParams(old);
        for (const name of DEPENDENT) if (!(name in changes)) next.delete(name);
        for (const [name, value] of Object.entries(changes)) {
          next.delete(name);
          for (const one of value === null ? [] : typeof value === "string" ? [value] : value) if (one) next.append(name, one);
        }
        return next;
      }),
    [setParams],
  );
  return { get, all, set };
}
