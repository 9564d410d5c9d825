/** A link from Airflow's other pages to the page Remote Workers. It doesn't reload Airflow's page. */

import { Link } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { Link as RouterLink } from "react-router-dom";
import { fleetPage } from "../host";

interface FleetLinkProps {
  /** The query string of the page: its tab and filters. */
  query: Record<string, string>;
  fontWeight?: string;
  children: ReactNode;
}

export function FleetLink({ query, children, ...look }: FleetLinkProps) {
  return (
    <Link asChild {...look}>
      <RouterLink to={fleetPage(query)}>{children}</RouterLink>
    </Link>
  );
}
