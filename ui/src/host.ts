/** All that we ask of Airflow's page besides the libraries it shares: where it is, and whose it is. */

/** Return the address of *path* below Airflow's root, whatever sub-path it is served under. */
export function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

/** Return the address of Airflow's own page at *path*, for a link. */
export function airflowPage(...parts: string[]): string {
  return address(parts.map(encodeURIComponent).join("/"));
}

/** Return the place of our own page within Airflow's, for its router. */
export function fleetPage(query: Record<string, string>): string {
  return `/plugin/remote-workers?${new URLSearchParams(query).toString()}`;
}

/** The zone that the user has chosen in Airflow's UI; undefined: the browser's. */
export function zone(): string | undefined {
  try {
    return localStorage.getItem("timezone") ?? undefined;
  } catch {
    return undefined; // a browser that keeps nothing
  }
}

export function language(): string {
  return document.documentElement.lang || navigator.language || "en";
}

/** Leave for Airflow's login, and come back here. */
export function logIn(): void {
  location.assign(`${address("api/v2/auth/login")}?next=${encodeURIComponent(location.href)}`);
}
