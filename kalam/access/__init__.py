"""Who there is and what they may do: users, roles, grants, policies, and how somebody proves who they are."""
