/** A way to the page Remote Workers from other pages of Airflow's, without loading all anew. */

import { Link } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { Link as RouterLink } from "react-router-dom";
import { fleetPage } from "../host";

interface ToProps {
  /** What the page shows, as in its address. */
  query: Record<string, string>;
  fontWeight?: string;
  children: ReactNode;
}

export function To({ query, children, ...look }: ToProps) {
  return (
    <Link asChild {...look}>
      <RouterLink to={fleetPage(query)}>{children}</RouterLink>
    </Link>
  );
}
