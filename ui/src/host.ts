/** Everything that the dashboard takes from Airflow's page, besides shared libraries: its address, language, time zone and login. */

/** Return the address of *path* below Airflow's root, including the sub-path that Airflow is served under. */
export function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

/** Return the address of Airflow's own page at *path*, for a link. */
export function airflowPage(...parts: string[]): string {
  return address(parts.map(encodeURIComponent).join("/"));
}

/** Return the path of the page Remote Workers, for Airflow's router. */
export function fleetPage(query: Record<string, string>): string {
  return `/plugin/remote-workers?${new URLSearchParams(query).toString()}`;
}

/** Return the time zone that the user has chosen in Airflow's UI; undefined: the browser's. */
export function zone(): string | undefined {
  try {
    return localStorage.getItem("timezone") ?? undefined;
  } catch {
    return undefined; // the browser has no storage
  }
}

/** Return the language of Airflow's page, as a BCP 47 tag. */
export function language(): string {
  return document.documentElement.lang || navigator.language || "en";
}

/** Open Airflow's login page, which leads back here. */
export function logIn(): void {
  location.assign(`${address("api/v2/auth/login")}?next=${encodeURIComponent(location.href)}`);
}
