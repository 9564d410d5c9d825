/** A list, or the notice that takes its place while there are no rows. */

import { Box } from "@chakra-ui/react";
import type { ReactNode } from "react";
import type { Problem } from "../api";
import { EmptyNotice, ErrorNotice, Loading } from "./Notices";

interface ListOrEmptyProps<T> {
  /** undefined: not read yet. */
  rows: readonly T[] | undefined;
  problem: Problem | undefined;
  /** The text for a list without rows. */
  empty: ReactNode;
  children: (rows: readonly T[]) => ReactNode;
}

export function ListOrEmpty<T>({ rows, problem, empty, children }: ListOrEmptyProps<T>) {
  return (
    <Box>
      <ErrorNotice problem={problem} />
      {rows ? rows.length ? children(rows) : <EmptyNotice>{empty}</EmptyNotice> : problem ? null : <Loading />}
    </Box>
  );
}
